//! The private connection to tiny_http, which takes a listener and nothing else.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

/// A listener for tiny_http and the one connection that is queued on it.
///
/// The listener is an abstract socket, which needs no file system. It is shut microseconds after
/// it was opened: nobody from outside this machine can reach it, and no local user in practice.
#[cfg(target_os = "linux")]
pub fn connect() -> io::Result<(UnixListener, UnixStream)> {
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let address = SocketAddr::from_abstract_name(unique_name())?;
    let listener = UnixListener::bind_addr(&address)?;
    let private = UnixStream::connect_addr(&address)?;
    // On Linux a listener that is shut still hands out what is queued and refuses the rest.
    let handle = UnixStream::from(OwnedFd::from(listener.try_clone()?));
    handle.shutdown(Shutdown::Both)?;
    Ok((listener, private))
}

/// The same on systems without abstract sockets: a socket in a new directory that only this user
/// may enter, and that is gone when it is connected.
#[cfg(not(target_os = "linux"))]
pub fn connect() -> io::Result<(UnixListener, UnixStream)> {
    use std::fs;
    use std::os::unix::fs::DirBuilderExt;

    let folder = std::env::temp_dir().join(unique_name());
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let path = folder.join("s");
    let connected =
        UnixListener::bind(&path).and_then(|listener| Ok((listener, UnixStream::connect(&path)?)));
    // Nobody can connect to it any longer.
    let _ = fs::remove_dir_all(&folder);
    connected
}

/// A name that nobody can guess; 104 bytes of path are all that macOS allows.
fn unique_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("ttn-gateway-exporter-{random:016x}")
}
