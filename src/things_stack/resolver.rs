//! Host names to addresses, for ureq, which asks before every request even where it then uses
//! a kept connection. So answers are remembered, and an old answer beats none: whether the
//! right server is behind an address is for TLS to say.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use std::collections::HashMap;

/// How long an answer is used without asking again. Load balancers change rarely, and a
/// collection of many requests should make one look-up.
const FRESH: Duration = Duration::from_secs(60);
/// How long an answer is used when the name servers fail.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the name servers may take where an older answer is at hand.
const PATIENCE: Duration = Duration::from_secs(1);
/// What ureq has room for.
const ADDRESSES_MAX: usize = 16;
/// There are three clusters of the community network.
const CAPACITY: usize = 64;

pub struct CachingResolver {
    known: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl CachingResolver {
    pub fn new() -> CachingResolver {
        CachingResolver {
            known: Mutex::new(HashMap::new()),
        }
    }

    fn known(
        &self,
        authority: &str,
        max_age: Duration,
        now: Instant,
    ) -> Option<ResolvedSocketAddrs> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, addresses) = known.get(authority)?;
        let is_usable = now.saturating_duration_since(*since) < max_age;
        is_usable.then(|| in_order(self.empty(), addresses.iter().copied()))
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let authority = uri.authority().map_or("", |a| a.as_str()).to_owned();
        let now = Instant::now();
        if let Some(addresses) = self.known(&authority, FRESH, now) {
            return Ok(addresses);
        }
        let older = self.known(&authority, STALE, now);
        let patience = match older {
            Some(_) => PATIENCE.min(*timeout.after),
            None => *timeout.after,
        };
        let addresses = match (look_up(uri, patience), older) {
            (Ok(addresses), _) => in_order(self.empty(), addresses.into_iter()),
            // As good as new for a while, so that not every request waits for the name servers.
            (Err(_), Some(older)) => older,
            (Err(error), None) => return Err(error),
        };
        if addresses.is_empty() {
            return Err(Error::HostNotFound);
        }
        let copy = in_order(self.empty(), addresses.iter().copied());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(authority, (now, copy));
        Ok(addresses)
    }
}

/// Asks the name servers, in a thread of its own, since a look-up knows no limit of time. ureq's
/// resolver does the same, but panics where there is no thread to be had.
fn look_up(uri: &Uri, patience: Duration) -> Result<Vec<SocketAddr>, Error> {
    let parts = uri.scheme().zip(uri.authority());
    let name = parts.and_then(|(scheme, authority)| {
        // With the port, which the scheme gives where the authority does not.
        DefaultResolver::host_and_port(scheme, authority)
    });
    let name = name.ok_or(Error::HostNotFound)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    // Nobody may wait for the answer any more.
    let ask = move || drop(sender.send(name.to_socket_addrs()));
    thread::Builder::new().spawn(ask).map_err(Error::Io)?;
    match receiver.recv_timeout(patience) {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(ureq::Timeout::Resolve)),
    }
}

impl std::fmt::Debug for CachingResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CachingResolver")
    }
}

/// IPv4 and IPv6 in turns, IPv4 first: ureq gives each further address half the time of the
/// one before, so a family that leads nowhere must not stand twice before the other. It takes
/// no more than so many.
fn in_order(
    mut empty: ResolvedSocketAddrs,
    addresses: impl Iterator<Item = SocketAddr> + Clone,
) -> ResolvedSocketAddrs {
    let mut v4 = addresses.clone().filter(SocketAddr::is_ipv4);
    let mut v6 = addresses.filter(SocketAddr::is_ipv6);
    loop {
        let pair = [v4.next(), v6.next()];
        if pair == [None, None] {
            return empty;
        }
        for address in pair.into_iter().flatten() {
            if empty.len() == ADDRESSES_MAX {
                return empty;
            }
            empty.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_and_ipv4_begins() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"];
        let given: Vec<SocketAddr> = given.map(|a| a.parse().unwrap()).to_vec();
        let empty = CachingResolver::new().empty();
        let ordered = in_order(empty, given.into_iter());
        let ordered: Vec<String> = ordered.iter().map(SocketAddr::to_string).collect();
        let expected = ["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1", "[::3]:1"];
        assert_eq!(ordered, expected);
    }

    #[test]
    fn a_name_with_hundreds_of_addresses_has_sixteen() {
        let given = (0..500).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let ordered = in_order(CachingResolver::new().empty(), given);
        assert_eq!(ordered.len(), ADDRESSES_MAX);
    }
}
