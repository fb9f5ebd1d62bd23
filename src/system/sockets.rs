//! Where the metrics are served: `--listen` to listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;

/// Connections that wait to be let in. With std's 128 a flood fills the queue, and a scraper
/// whose packet the kernel then drops tries again after a whole second.
const QUEUE_LENGTH: libc::c_int = 1024;

/// Opens a listener for each address that is meant: for an empty one all of IPv6 and IPv4,
/// for a name such as `localhost` everything that it stands for. Port 0 is a free port, the
/// same for all.
///
/// # Errors
/// If none of the addresses can be used, why the first could not.
pub fn bind(address: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let is_all = address.is_empty();
    let addresses: Vec<SocketAddr> = match address {
        // Where IPv6 takes IPv4 along, as it usually does, the second finds the port in use.
        "" => vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ],
        _ => (address, port).to_socket_addrs()?.collect(),
    };
    let mut listeners = Vec::new();
    let mut port = port;
    let mut problem = None;
    for mut address in addresses {
        address.set_port(port);
        match TcpListener::bind(address) {
            Ok(listener) => {
                lengthen_queue(&listener);
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(error) => {
                // All of IPv6 usually has IPv4 already.
                let is_expected = is_all && error.kind() == io::ErrorKind::AddrInUse;
                if !listeners.is_empty() && !is_expected {
                    log::warn!("not listening on {address}: {error}");
                }
                problem = problem.or(Some(error));
            }
        }
    }
    match problem {
        Some(problem) if listeners.is_empty() => Err(problem),
        _ if listeners.is_empty() => Err(io::Error::other("the name has no address")),
        _ => Ok(listeners),
    }
}

/// Where this fails, the queue stays as it was.
#[allow(unsafe_code)]
fn lengthen_queue(listener: &TcpListener) {
    // SAFETY: listen(2) takes no pointer, and on a descriptor that listens already it changes
    // nothing but the length of the queue.
    unsafe { libc::listen(listener.as_raw_fd(), QUEUE_LENGTH) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[track_caller]
    fn check(address: &str, reachable: &[&str]) {
        let listeners = bind(address, 0).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        for address in reachable {
            let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
            assert!(TcpStream::connect(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn all_interfaces_are_ipv4_and_ipv6_where_there_is_any() {
        let reachable = match TcpListener::bind("[::1]:0") {
            Ok(_) => ["127.0.0.1", "[::1]"].as_slice(),
            Err(_) => ["127.0.0.1"].as_slice(),
        };
        check("", reachable);
        check("localhost", &["127.0.0.1"]);
        check("127.0.0.1", &["127.0.0.1"]);
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let taken = bind("127.0.0.1", 0).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        let problem = bind("127.0.0.1", port).unwrap_err();
        assert_eq!(problem.kind(), io::ErrorKind::AddrInUse);
    }
}
