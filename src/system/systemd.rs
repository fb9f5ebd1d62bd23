//! Tells systemd that the exporter is ready and alive (sd_notify(3)): a datagram to the socket
//! that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};
use std::{env, io};

/// How often the loop wakes up where systemd does not ask whether it is alive.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(3600);
/// Requests can come by the thousand, and systemd need not hear of each.
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub struct Notifier {
    socket: Option<UnixDatagram>,
    has_watchdog: bool,
    /// A quarter of the time after which systemd would restart the service.
    interval: Duration,
    last: Option<Instant>,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn from_environment() -> Notifier {
        let watchdog = env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|microseconds| microseconds.parse::<u64>().ok());
        let interval = watchdog.map_or(INTERVAL_DEFAULT, |m| Duration::from_micros(m) / 4);
        Notifier {
            socket: connect(),
            has_watchdog: watchdog.is_some(),
            interval: interval.max(Duration::from_millis(100)),
            last: None,
        }
    }

    /// How long the loop may wait for a request.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that the loop goes round, if systemd wants to hear it and was not told just now.
    pub fn alive(&mut self, now: Instant) {
        let pause = PAUSE_MAX.min(self.interval / 2);
        let is_time = |last| now.saturating_duration_since(last) >= pause;
        if self.has_watchdog && self.last.is_none_or(is_time) {
            self.last = Some(now);
            self.send("WATCHDOG=1");
        }
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
    let socket = UnixDatagram::unbound()?;
    // A systemd that does not read must not hold up the loop.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address_of(name)?)?;
    Ok(socket)
}

/// A leading `@` stands for an abstract name, which only Linux has (unix(7)).
fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}
