//! Tells systemd that the exporter is ready and alive (sd_notify(3)): a datagram to the socket
//! that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io, thread};

/// systemd need not hear more often than this, whatever it asks for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The thread sends datagrams and sleeps.
const STACK_BYTES: usize = 64 * 1024;

pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// A quarter of the time after which systemd would restart the service, if it does.
    interval: Option<Duration>,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn from_environment() -> Notifier {
        let watchdog = env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|microseconds| microseconds.parse::<u64>().ok());
        let interval = watchdog.map(|m| (Duration::from_micros(m) / 4).max(INTERVAL_MIN));
        let socket = connect();
        Notifier { socket, interval }
    }

    /// Says that the service is ready and, where systemd wants to hear it, from now on that it
    /// is alive, as long as it is. That is a thread of its own: what may take long, such as a
    /// collection, is no reason for a restart.
    pub fn start(self, is_alive: impl Fn() -> bool + Send + 'static) {
        self.send("READY=1");
        let (Some(interval), Some(_)) = (self.interval, &self.socket) else {
            return;
        };
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let started = builder.name("watchdog".to_owned()).spawn(move || {
            loop {
                if is_alive() {
                    self.send("WATCHDOG=1");
                }
                thread::sleep(interval);
            }
        });
        if let Err(error) = started {
            log::warn!("cannot start the thread that notifies systemd: {error}");
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
    // A systemd that does not read must not hold up anything.
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
