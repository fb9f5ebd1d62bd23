//! Tells systemd that the exporter is ready and alive (sd_notify(3)): a datagram to the socket
//! that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::ffi::OsStr;
use std::num::NonZeroU64;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io, thread};

/// systemd need not hear more often than this, whatever it asks for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A systemd that is busy, as at boot, reads within this.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// Says that the service is ready and, where systemd wants to hear it (WATCHDOG_USEC), from now on
/// that it is alive, as long as it is. That is a thread of its own: what may take long, such as a
/// collection, is no reason for a restart.
pub fn notify(is_alive: impl Fn() -> bool + Send + 'static) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let socket = match connect_to(&name) {
        Ok(socket) => socket,
        Err(error) => return log::warn!("cannot notify systemd at NOTIFY_SOCKET: {error}"),
    };
    send(&socket, "READY=1");
    let Some(interval) = watchdog_interval() else {
        return;
    };
    let builder = thread::Builder::new().name("watchdog".to_owned());
    let started = builder.spawn(move || {
        loop {
            if is_alive() {
                send(&socket, "WATCHDOG=1");
            }
            thread::sleep(interval);
        }
    });
    if let Err(error) = started {
        log::warn!("cannot start the thread that notifies systemd: {error}");
    }
}

/// A quarter of the time after which systemd would restart the service, if it does.
fn watchdog_interval() -> Option<Duration> {
    let microseconds: NonZeroU64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some((Duration::from_micros(microseconds.get()) / 4).max(INTERVAL_MIN))
}

fn send(socket: &UnixDatagram, message: &str) {
    if let Err(error) = socket.send(message.as_bytes()) {
        log::debug!("cannot notify systemd: {error}");
    }
}

fn connect_to(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIME_MAX))?;
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
