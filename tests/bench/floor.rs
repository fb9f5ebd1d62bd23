//! The floor: the least that a program on this server library can do for a scrape. It sends
//! prepared bytes, in one piece, to whoever connects.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::directory::Directory;

/// Answers every request with the bytes of the file, head included, for ever.
pub fn serve(path: &str) -> io::Result<()> {
    let answer = fs::read(path)?;
    let server = tiny_http::Server::http("127.0.0.1:0").map_err(io::Error::other)?;
    println!("{}", server.server_addr());
    for request in server.incoming_requests() {
        let mut writer = request.into_writer();
        // A visitor that is gone needs no answer.
        let _ = writer.write_all(&answer).and_then(|()| writer.flush());
    }
    Ok(())
}

/// The floor program as a process of its own; it is killed when dropped.
pub struct Floor {
    pub address: SocketAddr,
    child: Child,
    _directory: Directory,
}

impl Floor {
    pub fn start(answer: &[u8]) -> Floor {
        let directory = Directory::new();
        let path = directory.path().join("answer");
        fs::write(&path, answer).expect("a file in the temporary directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("--floor")
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("the line with the address");
        Floor {
            address: line.trim().parse().expect("an address"),
            child,
            _directory: directory,
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It has no other way to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
