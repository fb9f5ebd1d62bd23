//! Tells systemd that the exporter is ready and alive (sd_notify(3)): a datagram to the socket
//! that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io};

/// How often the loop wakes up to say that it is alive where systemd names no interval.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(3600);

pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// A quarter of the time after which systemd would restart the service.
    interval: Duration,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn from_environment() -> Notifier {
        let watchdog = env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|microseconds| microseconds.parse().ok());
        let interval = watchdog.map_or(INTERVAL_DEFAULT, |m| Duration::from_micros(m) / 4);
        Notifier {
            socket: connect(),
            interval: interval.max(Duration::from_millis(100)),
        }
    }

    /// How long the loop may wait for a request.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that the loop goes round.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            log::debug!("cannot notify systemd: {error}");
        }
    }
}

fn connect() -> Option<UnixDatagram> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    let connected = connect_to(&name);
    if let Err(error) = &connected {
        log::warn!("cannot notify systemd at NOTIFY_SOCKET: {error}");
    }
    connected.ok()
}

fn connect_to(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address?)?;
    Ok(socket)
}
