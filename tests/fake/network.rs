//! What lies between a client and a server: a NAT that forgets connections, an address that
//! takes none.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// What a NAT between the client and this cluster forgets: the client's bytes are still
/// accepted on such a connection, no answer and no reset ever comes. New connections work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nat {
    /// Connections that were idle for so long.
    pub idle_max: Option<Duration>,
    /// Connections that have carried so many requests.
    pub requests_max: Option<usize>,
}

impl Nat {
    /// Each connection carries one request.
    pub fn of_one_request() -> Nat {
        Nat {
            idle_max: None,
            requests_max: Some(1),
        }
    }

    pub fn of_idle(idle_max: Duration) -> Nat {
        Nat {
            idle_max: Some(idle_max),
            requests_max: None,
        }
    }
}

/// An address that takes no connection and refuses none: its queue is full, so that a client
/// waits for its own time limit.
pub struct BlackHole {
    listener: TcpListener,
    /// They fill the queue as long as they live.
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub fn open() -> BlackHole {
        use std::os::fd::AsRawFd;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        // SAFETY: listen(2) on an open, listening descriptor only changes its queue; std has
        // no way to name the queue's length.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().expect("it is bound");
        let brief = Duration::from_millis(200);
        let tries = (0..64).map(|_| TcpStream::connect_timeout(&address, brief));
        let waiting: Vec<TcpStream> = tries.map_while(Result::ok).collect();
        BlackHole {
            listener,
            _waiting: waiting,
        }
    }

    pub fn url(&self) -> String {
        let address = self.listener.local_addr().expect("it is bound");
        format!("http://{address}")
    }
}
