//! Connections of an unfriendly client: what std has no name for, and waiting with an end.

use std::io::{self, Read, Write};
use std::mem::size_of;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const TIME_MAX: Duration = Duration::from_secs(2);

/// A connection, unless the server's queue is full.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIME_MAX)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    Ok(stream)
}

/// A connection that takes this many bytes (the kernel doubles it) before its owner reads.
/// The buffer has to be small before it connects: what is announced once stays open.
pub fn connect_with_receive_buffer(address: SocketAddr, bytes: i32) -> io::Result<TcpStream> {
    let SocketAddr::V4(address) = address else {
        return Err(io::Error::other("IPv4 only"));
    };
    // SAFETY: socket(2) takes no pointer; the descriptor is new and nobody else's.
    let socket = unsafe {
        let descriptor = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    let stream = TcpStream::from(socket);
    set_option(&stream, libc::SO_RCVBUF, &bytes)?;
    connect_socket(&stream, address)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    Ok(stream)
}

fn connect_socket(stream: &TcpStream, address: SocketAddrV4) -> io::Result<()> {
    // SAFETY: zero is a valid value for all of its numbers. Some systems have more than others.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = address.port().to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
    let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and pointer and size are those of a `sockaddr_in` that
    // outlives the call.
    let result = unsafe {
        let name = std::ptr::from_ref(&name).cast();
        libc::connect(stream.as_raw_fd(), name, size)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes with a reset: `SO_LINGER` with no time, see socket(7).
pub fn reset(stream: TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(&stream, libc::SO_LINGER, &linger)
}

fn set_option<T>(stream: &TcpStream, option: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and pointer and size are those of a value that outlives
    // the call.
    let result = unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, option, value, size)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the server has ended this connection. Takes what it has sent.
pub fn is_over(mut stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let is_over = loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    is_over || stream.set_nonblocking(false).is_err()
}

/// Sends these bytes and gives the first line of the answer; an error if none comes.
pub fn ask(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<String> {
    stream.write_all(bytes)?;
    let mut answer = [0; 512];
    let count = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..count]);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
