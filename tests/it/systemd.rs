//! What it tells systemd: that it listens, and that it lives.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Fake, Fleet, Misbehaviour};
use crate::harness::{Exporter, PATIENCE, Setup, directory::Directory};

fn receive(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut bytes = [0; 256];
    let count = socket.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn start(fake: &Fake, socket: &str, watchdog_usec: &str) -> Exporter {
    Setup::against(fake)
        .variable("NOTIFY_SOCKET", socket)
        .variable("WATCHDOG_USEC", watchdog_usec)
        .start()
}

#[track_caller]
fn check_messages(socket: &UnixDatagram, exporter: &Exporter) {
    assert_eq!(receive(socket), "READY=1", "{exporter}");
    assert!(TcpStream::connect(exporter.address).is_ok(), "{exporter}");
    let start = Instant::now();
    for number in 0..6 {
        // It says so when it is busy as well as when it is idle.
        if number > 2 {
            exporter.scrape();
        }
        assert_eq!(receive(socket), "WATCHDOG=1", "{exporter}");
    }
    // Not for each of the requests that somebody may send.
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(200), "{elapsed:?}");
}

#[test]
fn systemd_hears_that_it_listens_and_that_it_lives() {
    let fake = Fake::start(Fleet::generated(1));
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let exporter = start(&fake, path.to_str().expect("ASCII"), "400000");
    check_messages(&socket, &exporter);
}

/// Linux alone has such sockets, and systemd.
#[cfg(target_os = "linux")]
#[test]
fn a_socket_without_a_file_is_as_good() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let fake = Fake::start(Fleet::generated(1));
    let name = format!("ttn-gateway-exporter-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let exporter = start(&fake, &format!("@{name}"), "400000");
    check_messages(&socket, &exporter);
}

#[test]
fn a_collection_that_hangs_within_its_deadline_is_no_reason_to_restart() {
    let fake = Fake::start(Fleet::generated(1));
    fake.script_all(Misbehaviour::HangBeforeHead);
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let setup = Setup::against(&fake).args(["--timeout", "5"]);
    let setup = setup.variable("NOTIFY_SOCKET", path.to_str().expect("ASCII"));
    let exporter = setup.variable("WATCHDOG_USEC", "400000").start();
    assert_eq!(receive(&socket), "READY=1", "{exporter}");
    thread::scope(|scope| {
        let scrape = scope.spawn(|| exporter.scrape());
        while fake.request_count() == 0 {
            receive(&socket);
        }
        for _ in 0..10 {
            assert_eq!(receive(&socket), "WATCHDOG=1", "{exporter}");
        }
        assert!(!scrape.is_finished(), "{exporter}");
        fake.behave();
        fake.close_connections();
    });
}

#[test]
fn without_a_watchdog_it_says_only_that_it_is_ready() {
    let fake = Fake::start(Fleet::generated(1));
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let setup = Setup::against(&fake).variable("NOTIFY_SOCKET", path.to_str().expect("ASCII"));
    let exporter = setup.start();
    assert_eq!(receive(&socket), "READY=1");
    for _ in 0..3 {
        exporter.scrape();
    }
    socket.set_nonblocking(true).expect("a flag");
    assert!(socket.recv(&mut [0; 16]).is_err(), "{exporter}");
}

#[test]
fn a_systemd_that_does_not_listen_holds_nothing_up() {
    let fake = Fake::start(Fleet::generated(1));
    let directory = Directory::new();
    let path = directory.path().join("notify");
    // The kernel queues ten messages for it, or some hundreds.
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let exporter = start(&fake, path.to_str().expect("ASCII"), "1");
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(50));
        exporter.scrape_within(PATIENCE / 3, &[]);
    }
}

/// As at boot, when many services start at once.
#[test]
fn a_systemd_that_is_busy_hears_that_it_is_ready() {
    let fake = Fake::start(Fleet::generated(1));
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let others = UnixDatagram::unbound().expect("a socket");
    others.connect(&path).expect("a connection");
    others.set_nonblocking(true).expect("a flag");
    while others.send(b"STATUS=of another service").is_ok() {}
    let exporter = start(&fake, path.to_str().expect("ASCII"), "");
    thread::sleep(Duration::from_millis(200));
    while receive(&socket) != "READY=1" {}
    exporter.scrape();
}

#[test]
fn nonsense_in_its_variables_does_no_harm() {
    let fake = Fake::start(Fleet::generated(1));
    let long = "/".repeat(300);
    for socket in [
        "",
        "/nowhere/at/all",
        "@",
        "relative",
        "vsock:2:1234",
        &long,
    ] {
        for usec in ["0", "-1", "soon", "18446744073709551615"] {
            start(&fake, socket, usec).scrape();
        }
    }
}
