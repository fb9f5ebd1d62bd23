//! Host names to addresses, for ureq, which asks before every request even where it then uses
//! a kept connection. So answers are kept for a minute, unless no connection came about.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer is used, counted from the look-up: a collection of many requests makes
/// one look-up, and a host that moved is found again soon.
const FRESH: Duration = Duration::from_secs(60);
/// How the C libraries say that a name does not exist or has no address, which is certain; what else
/// they say may pass, as where the name servers have no network (getaddrinfo(3): std keeps no code).
const NO_SUCH_NAME: [&str; 5] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname provided, or not known",
];
/// The most that ureq takes.
const ADDRESSES_MAX: usize = 16;

type Addresses = BTreeMap<String, (Instant, ResolvedSocketAddrs)>;

/// Copies share what is known.
#[derive(Clone, Debug, Default)]
pub struct CachingResolver(Arc<Mutex<Addresses>>);

impl CachingResolver {
    /// The next request to any host looks its name up again. There are few clusters,
    /// and behind a proxy the name that matters is the proxy's, so all are forgotten at once.
    pub fn forget(&self) {
        self.addresses().clear();
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &str, now: Instant) -> Option<ResolvedSocketAddrs> {
        let addresses = self.addresses();
        let (since, found) = addresses.get(name)?;
        (now.saturating_duration_since(*since) < FRESH).then(|| found.clone())
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (scheme, authority) = uri
            .scheme()
            .zip(uri.authority())
            .ok_or(Error::HostNotFound)?;
        // With the port, which the scheme gives where the authority does not.
        let name = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        match self.known(&name, Instant::now()) {
            Some(addresses) => Ok(addresses),
            None => self.look_up(name, *timeout.after),
        }
    }
}

impl CachingResolver {
    /// Asks the name servers, in a thread of its own, since a look-up knows no limit of time. ureq's
    /// resolver does the same, but panics where there is no thread to be had. An answer that comes
    /// too late serves the next request.
    fn look_up(&self, name: String, time: Duration) -> Result<ResolvedSocketAddrs, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let resolver = self.clone();
        let ask = move || {
            let found = resolver.ask(name);
            // The receiver may be gone.
            let _ = sender.send(found);
        };
        thread::Builder::new().spawn(ask).map_err(Error::Io)?;
        let no_answer = |_| Err(Error::Timeout(ureq::Timeout::Resolve));
        receiver.recv_timeout(time).unwrap_or_else(no_answer)
    }

    fn ask(&self, name: String) -> Result<ResolvedSocketAddrs, Error> {
        let found = name.to_socket_addrs().map_err(meaning)?;
        let addresses = in_order(self.empty(), found.collect());
        if addresses.is_empty() {
            return Err(Error::HostNotFound);
        }
        let answer = (Instant::now(), addresses.clone());
        self.addresses().insert(name, answer);
        Ok(addresses)
    }
}

/// What an error of getaddrinfo(3) means.
fn meaning(error: io::Error) -> Error {
    let text = error.to_string();
    match NO_SUCH_NAME.iter().any(|end| text.ends_with(end)) {
        true => Error::HostNotFound,
        false => Error::Timeout(ureq::Timeout::Resolve),
    }
}

/// IPv4 and IPv6 alternately, IPv4 first: ureq gives each further address half the time of the
/// one before, so a family that leads nowhere must not stand twice before the other.
fn in_order(mut ordered: ResolvedSocketAddrs, addresses: Vec<SocketAddr>) -> ResolvedSocketAddrs {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let pairs = (0..v4.len().max(v6.len())).flat_map(|place| [v4.get(place), v6.get(place)]);
    for address in pairs.flatten().take(ADDRESSES_MAX) {
        ordered.push(*address);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CachingResolver {
        pub fn is_empty(&self) -> bool {
            self.addresses().is_empty()
        }
    }

    #[test]
    fn an_answer_that_comes_too_late_serves_the_next_request() {
        let resolver = CachingResolver::default();
        let _ = resolver.look_up("127.0.0.1:80".to_owned(), Duration::ZERO);
        let end = Instant::now() + Duration::from_secs(10);
        while resolver.known("127.0.0.1:80", Instant::now()).is_none() {
            assert!(Instant::now() < end, "it was never kept");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn only_that_there_is_no_such_name_is_certain() {
        let of = |text: &str| {
            let text = format!("failed to lookup address information: {text}");
            matches!(meaning(io::Error::other(text)), Error::HostNotFound)
        };
        assert!(NO_SUCH_NAME.into_iter().all(of));
        for text in [
            "Temporary failure in name resolution",
            "Non-recoverable failure in name resolution",
            "Try again",
            "System error",
        ] {
            assert!(!of(text), "{text}");
        }
    }

    #[test]
    fn the_families_take_turns_and_ipv4_begins() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"];
        let given: Vec<SocketAddr> = given.map(|a| a.parse().unwrap()).to_vec();
        let empty = CachingResolver::default().empty();
        let ordered = in_order(empty, given);
        let ordered: Vec<String> = ordered.iter().map(SocketAddr::to_string).collect();
        let expected = ["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1", "[::3]:1"];
        assert_eq!(ordered, expected);
    }

    #[test]
    fn a_name_with_hundreds_of_addresses_has_sixteen() {
        let given = (0..500).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let ordered = in_order(CachingResolver::default().empty(), given.collect());
        assert_eq!(ordered.len(), ADDRESSES_MAX);
    }

    #[test]
    fn an_answer_is_used_for_a_minute_and_using_it_does_not_renew_it() {
        let resolver = CachingResolver::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 443));
        let start = Instant::now();
        let entry = (start, in_order(resolver.empty(), vec![address]));
        resolver.addresses().insert("a:443".to_owned(), entry);
        for (seconds, is_known) in [(0, true), (30, true), (59, true), (60, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(
                resolver.known("a:443", now).is_some(),
                is_known,
                "{seconds}"
            );
        }
        assert!(resolver.known("b:443", start).is_none());
    }
}
