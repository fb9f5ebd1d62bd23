//! Tells systemd that the exporter is ready and alive (sd_notify(3)): a datagram to the socket
//! that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io};

/// Signs of life are looked for at least this often, also where systemd does not ask for any.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const INTERVAL_MIN: Duration = Duration::from_millis(100);

pub struct Notifier {
    socket: Option<UnixDatagram>,
    has_watchdog: bool,
    /// A quarter of the time after which systemd would restart the service.
    interval: Duration,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn from_environment() -> Notifier {
        let watchdog = env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|microseconds| microseconds.parse::<u64>().ok());
        let interval = watchdog.map_or(INTERVAL_MAX, |m| Duration::from_micros(m) / 4);
        Notifier {
            socket: connect(),
            has_watchdog: watchdog.is_some(),
            interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
        }
    }

    /// How often [`Notifier::alive`] should be called.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether systemd wants to hear that the service is alive.
    pub fn has_watchdog(&self) -> bool {
        self.has_watchdog
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that the service is alive.
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
        Some(name) => abstract_address(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound()?;
    // A systemd that does not read must not hold up anything.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address?)?;
    Ok(socket)
}

/// An address without a file (unix(7)), which only Linux has.
#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
