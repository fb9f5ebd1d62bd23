//! Which proxy the environment asks for, and for which hosts. Pure.
//!
//! The variables are those that curl reads for an `https` URL (libcurl-env(3)): `https_proxy`,
//! `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`, in this order, then `no_proxy` or `NO_PROXY` for the
//! exceptions. `http_proxy` does not count: plain HTTP goes through no proxy, which could read
//! the key. ureq reads the environment too, but in another order and with HTTP_PROXY for https.

use std::ffi::OsString;
use std::net::IpAddr;

use ureq::{Proxy, ProxyProtocol};

use crate::things_stack::hosts::split_port;

const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTION_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A proxy and the hosts that are reached without it.
#[derive(Debug)]
pub struct ProxyRule {
    pub proxy: Proxy,
    exceptions: Vec<String>,
}

impl ProxyRule {
    /// What the variables ask for. An empty variable is as good as none.
    ///
    /// # Errors
    /// If the variable that counts cannot be used: its name and why, without its value, which
    /// may hold a password. To go on without the proxy would go around somebody's firewall.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<ProxyRule>, String> {
        let with_value = |name: &'static str| (name, variable(name).unwrap_or_default());
        let is_set = |(_, value): &(&str, OsString)| !value.is_empty();
        let mut lists = EXCEPTION_VARIABLES.into_iter().map(with_value);
        let (_, exceptions) = lists.find(is_set).unwrap_or_default();
        let exceptions = exceptions.to_string_lossy().to_lowercase();
        let mut proxies = PROXY_VARIABLES.into_iter().map(with_value);
        let given = proxies.find(is_set).filter(|_| exceptions.trim() != "*");
        let Some((name, value)) = given else {
            return Ok(None);
        };
        let proxy = value.to_str().ok_or("is not UTF-8").and_then(read_proxy);
        let proxy = proxy.map_err(|problem| format!("the proxy of {name} {problem}"))?;
        // `.example.com` and `[::1]` are other spellings of the same without these signs.
        let entries = exceptions.split([',', ' ', '\t']);
        let entries = entries.map(|entry| entry.trim_matches(['[', ']', '.']).to_owned());
        let exceptions = entries.collect();
        Ok(Some(ProxyRule { proxy, exceptions }))
    }

    /// Whether requests to this host go through the proxy. A name in the list stands for itself
    /// and everything below it, an address for itself or, with `/BITS`, for its network.
    pub fn applies_to(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        !self.exceptions.iter().any(|exception| match address {
            Some(address) => is_in_network(address, exception),
            None => host
                .strip_suffix(exception.as_str())
                .is_some_and(|front| front.is_empty() || front.ends_with('.')),
        })
    }
}

/// A network is `ADDRESS` or `ADDRESS/BITS`.
fn is_in_network(address: IpAddr, network: &str) -> bool {
    let (first, bits) = network.split_once('/').unwrap_or((network, "128"));
    let (Ok(first), Ok(bits)) = (first.parse(), bits.parse::<u32>()) else {
        return false;
    };
    // All of it shifted away is nothing on both sides.
    let front = |address| left_aligned(address).checked_shr(u128::BITS.saturating_sub(bits));
    address.is_ipv4() == IpAddr::is_ipv4(&first) && front(address) == front(first)
}

/// The bits of an address, from the highest one on.
fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << (u128::BITS - u32::BITS),
        IpAddr::V6(address) => address.into(),
    }
}

/// An HTTP proxy that is reached over HTTP or HTTPS: ureq is built without SOCKS.
fn read_proxy(text: &str) -> Result<Proxy, &'static str> {
    let garbage = "is not http://HOST:PORT";
    let proxy = Proxy::new(text.trim()).map_err(|_| garbage)?;
    // ureq would take the usual port for one that is no number.
    let authority = proxy.uri().authority().map_or("", |a| a.as_str());
    let address = authority.rsplit('@').next().unwrap_or_default();
    if split_port(address).is_none_or(|(host, _)| host.is_empty()) {
        return Err(garbage);
    }
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err("is a SOCKS proxy; only http:// and https:// are supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(variables: &[(&str, &str)]) -> Result<Option<ProxyRule>, String> {
        ProxyRule::from_environment(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: Option<&str>) {
        let rule = rule(variables).unwrap();
        let host = rule.as_ref().map(|rule| rule.proxy.host());
        assert_eq!(host, expected, "{variables:?}");
    }

    #[test]
    fn the_variables_count_in_the_order_of_curl() {
        let all = [
            ("https_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:1"),
            ("all_proxy", "c:1"),
            ("ALL_PROXY", "https://u:p@d"),
        ];
        for (index, host) in ["a", "b", "c", "d"].into_iter().enumerate() {
            check(&all[index..], Some(host));
        }
        check(&[("https_proxy", ""), ("ALL_PROXY", "d:1")], Some("d"));
        check(&[("http_proxy", "a:1"), ("HTTP_PROXY", "a:1")], None);
        check(&[("https_proxy", "socks5://a"), ("no_proxy", "*")], None);
        check(&[], None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named_by_its_variable_and_not_repeated() {
        for value in [
            "socks5://hunter2@a:1080",
            "socks4a://hunter2",
            "http://",
            "ftp://hunter2",
            "hunter2 hunter2",
            "http://u:hunter2@",
            "http://a:hunter2",
            "://hunter2",
            "http://hunter2:99999",
        ] {
            for variable in PROXY_VARIABLES {
                let problem = rule(&[(variable, value)]).unwrap_err();
                assert!(problem.contains(variable), "{value}: {problem}");
                assert!(!problem.contains("hunter2"), "{value}: {problem}");
            }
        }
    }

    #[track_caller]
    fn check_exceptions(list: &str, direct: &[&str], through: &[&str]) {
        let variables = [("https_proxy", "a:1"), ("NO_PROXY", list)];
        let rule = rule(&variables).unwrap().unwrap();
        for host in direct {
            assert!(!rule.applies_to(host), "{list}: {host}");
        }
        for host in through {
            assert!(rule.applies_to(host), "{list}: {host}");
        }
    }

    #[test]
    fn exceptions_are_those_of_curl() {
        let names = ["example.com", "a.example.com"];
        check_exceptions("example.com", &names, &["badexample.com", "com"]);
        check_exceptions(".Example.com., b", &names, &["badexample.com"]);
        check_exceptions("10.0.0.1", &["10.0.0.1"], &["10.0.0.10", "210.0.0.1"]);
        check_exceptions(
            "10.0.0.0/8 [::1]",
            &["10.9.9.9", "::1"],
            &["11.0.0.1", "::2"],
        );
        check_exceptions("fd00::/8,0.0.0.0/0", &["fd12::1", "1.2.3.4"], &["fe80::1"]);
        check_exceptions("::/0", &["fe80::1"], &["1.1.1.1", "a"]);
        check_exceptions("*.x, 10.0.0.0/x,,", &[], &["a.x", "10.0.0.1"]);
    }

    #[test]
    fn the_lower_case_list_wins() {
        let variables = [("https_proxy", "a:1"), ("no_proxy", "b"), ("NO_PROXY", "c")];
        let rule = rule(&variables).unwrap().unwrap();
        assert!(!rule.applies_to("b") && rule.applies_to("c"));
    }
}
