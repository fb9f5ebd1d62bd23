//! Where the metrics are served: `--listen` to listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;

/// Connections that wait to be let in. With std's 128 a flood fills the queue, and a scraper
/// whose packet the kernel then drops tries again after a whole second.
const QUEUE_LENGTH: libc::c_int = 1024;

/// How often a port is sought that is free at all addresses, where any will do.
const FREE_PORT_TRIES: usize = 10;

/// Opens a listener for each address that is meant: for an empty one all of IPv6 and IPv4,
/// for a name such as `localhost` everything that it stands for. Port 0 is a free port, the
/// same for all. An address that this machine does not have, such as any of IPv6, is left out.
///
/// # Errors
/// If the port is in use at one of the addresses, or none of them can be used.
pub fn bind(address: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut addresses: Vec<SocketAddr> = match address {
        "" => vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ],
        _ => (address, port).to_socket_addrs()?.collect(),
    };
    // /etc/hosts may have the same address on several lines, one after the other.
    addresses.dedup();
    // A port that is free at the first address can be in use at the next one.
    let mut tries_left = if port == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries_left -= 1;
        match bind_all(&addresses, port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries_left > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_all(addresses: &[SocketAddr], mut port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut problem = io::Error::other("the name has no address");
    for mut address in addresses.iter().copied() {
        address.set_port(port);
        match TcpListener::bind(address) {
            Ok(listener) => {
                lengthen_queue(&listener);
                port = listener.local_addr()?.port();
                let is_all = address.ip() == Ipv6Addr::UNSPECIFIED && takes_ipv4(&listener);
                listeners.push(listener);
                if is_all {
                    break;
                }
            }
            // To serve the other addresses alone would look right from some machines only.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => {
                log::debug!("not listening on {address}: {error}");
                problem = error;
            }
        }
    }
    match listeners.is_empty() {
        true => Err(problem),
        false => Ok(listeners),
    }
}

/// Whether this listener of IPv6 takes connections over IPv4 too (ipv6(7)), as it does unless
/// the machine is set up otherwise.
#[allow(unsafe_code)]
fn takes_ipv4(listener: &TcpListener) -> bool {
    let mut is_ipv6_only: libc::c_int = 1;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `size` bytes to the number, and the size that it
    // wrote. Both outlive the call. Where it fails, the number stays 1.
    unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            (&raw mut is_ipv6_only).cast(),
            &mut size,
        )
    };
    is_ipv6_only == 0
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

    #[test]
    fn a_port_that_is_taken_on_one_of_the_addresses_is_an_error() {
        for taken in ["[::]:0", "[::1]:0", "0.0.0.0:0", "127.0.0.1:0"] {
            // Where there is no IPv6, there is nothing to take.
            let Ok(taken) = TcpListener::bind(taken) else {
                continue;
            };
            let address = taken.local_addr().unwrap();
            let problem = bind("", address.port()).unwrap_err();
            assert_eq!(problem.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }
}
