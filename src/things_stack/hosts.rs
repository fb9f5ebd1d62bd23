//! Which hosts the API key may be sent to, and the API's URL on each. Pure.
//!
//! A gateway's `gateway_server_address` is text that any collaborator of that gateway can
//! edit: a program that follows it blindly hands the key to a stranger. So only hosts that belong
//! together with `--server`, or that the operator named, are ever contacted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The public clusters of The Things Network, the one that lists gateways first. What else has been
/// below this domain is private or gone: a gateway that names it must not make all others wait.
/// <https://www.thethingsindustries.com/docs/the-things-stack/concepts/ttn/addresses/>
pub const COMMUNITY_HOSTS: [&str; 3] = [
    "eu1.cloud.thethings.network",
    "nam1.cloud.thethings.network",
    "au1.cloud.thethings.network",
];
/// Clusters of The Things Stack Cloud, tenant and region in front (`acme.eu1`).
const CLOUD_SUFFIX: &str = ".cloud.thethings.industries";

/// The scheme, host and port of one API; paths are added to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseUrl {
    pub is_https: bool,
    /// Lower case, without a trailing dot; IPv6 without brackets.
    pub host: String,
    pub port: Option<u16>,
}

impl BaseUrl {
    /// Reads what `--server` takes: `https://host[:port]`, the scheme left out for https, and
    /// `/` or `/api/v3` allowed behind it.
    pub fn parse(text: &str) -> Result<BaseUrl, &'static str> {
        let (scheme, authority, path) = split(text);
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err("is neither an https nor an http URL");
        }
        if text.contains('@') {
            return Err("has user information, which belongs into no URL");
        }
        if !matches!(path.trim_end_matches('/'), "" | "/api/v3") {
            return Err("has a path: give the scheme and the host alone");
        }
        let (host, port) = split_port(authority).ok_or("has no valid port")?;
        let host = normalize(host).ok_or("has no valid host name")?;
        Ok(BaseUrl {
            is_https,
            host,
            port,
        })
    }

    /// Whether requests to it stay on this machine.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]", self.host)?,
            false => write!(f, "{scheme}://{}", self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// One `--allow-host`: a host that gateways name, and the API that has their stats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// As gateways name it, normalized.
    pub name: String,
    pub api: BaseUrl,
}

impl AllowedHost {
    /// Reads `HOST`, `HOST:PORT` or `NAME=URL`. The API of a host is at `https://HOST[:PORT]`;
    /// an IPv6 address with a port stands in brackets.
    ///
    /// # Errors
    /// What is wrong with the text, without the text.
    pub fn parse(text: &str) -> Result<AllowedHost, &'static str> {
        let text = text.trim();
        if let Some((name, url)) = text.split_once('=') {
            // An IPv6 address may stand in brackets.
            let name = normalize(name.trim().trim_matches(['[', ']']));
            let name = name.ok_or("is no NAME=URL: NAME is no host")?;
            let api = BaseUrl::parse(url.trim())?;
            return Ok(AllowedHost { name, api });
        }
        if text.contains(['/', '?', '#']) {
            return Err("is a URL: use HOST[:PORT], or NAME=URL");
        }
        let api = match text.parse::<Ipv6Addr>() {
            Ok(address) => BaseUrl::parse(&format!("[{address}]"))?,
            Err(_) => BaseUrl::parse(text)?,
        };
        let name = api.host.clone();
        Ok(AllowedHost { name, api })
    }
}

/// Where the key may go.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    server: BaseUrl,
    allowed: Vec<AllowedHost>,
}

impl KnownHosts {
    pub fn new(server: BaseUrl, mut allowed: Vec<AllowedHost>) -> KnownHosts {
        // The host of `--server` without a port adds nothing to `--server`.
        allowed.retain(|AllowedHost { name, api }| {
            *name != server.host || api.host != server.host || api.port.is_some()
        });
        KnownHosts { server, allowed }
    }

    /// Whether this `gateway_server_address` names a host at all. The server leaves it empty
    /// for a caller without the right to see it, and it may never have been set.
    pub fn names_host(gateway_server_address: &str) -> bool {
        !split(gateway_server_address.trim()).1.is_empty()
    }

    /// The API that has the stats of a gateway with this `gateway_server_address`; that of
    /// `--server` for an empty one.
    ///
    /// The scheme and port in it belong to the gateway's protocol (`mqtts://…:8883`) and are
    /// ignored. The API is the one that `--allow-host` gives for this host, `--server` for its own
    /// host, and `https` on the usual port for others.
    ///
    /// # Errors
    /// The host, cut to what fits into a log line, if the key must not go there.
    pub fn api_of(&self, gateway_server_address: &str) -> Result<BaseUrl, String> {
        let address = gateway_server_address.trim();
        if address.is_empty() {
            return Ok(self.server.clone());
        }
        let (_, authority, _) = split(address);
        let host = split_port(authority).and_then(|(host, _)| normalize(host));
        let host = host.ok_or_else(|| printable(authority))?;
        match self.allowed.iter().find(|allowed| allowed.name == host) {
            Some(allowed) => Ok(allowed.api.clone()),
            None if host == self.server.host => Ok(self.server.clone()),
            None if self.is_known(&host) => BaseUrl::parse(&host).map_err(|_| host),
            None => Err(host),
        }
    }

    /// Every API that may have the stats of a gateway whose address names none: `--server`, the
    /// other public clusters if it is one of the community network, and those of `--allow-host`.
    /// Each once, always in the same order.
    pub fn candidates(&self) -> Vec<BaseUrl> {
        let is_another = |host: &&str| *host != self.server.host && self.is_known(host);
        let clusters = COMMUNITY_HOSTS.into_iter().filter(is_another);
        let clusters = clusters.filter_map(|host| BaseUrl::parse(host).ok());
        let allowed = self.allowed.iter().map(|allowed| allowed.api.clone());
        let mut found = vec![self.server.clone()];
        for api in clusters.chain(allowed) {
            if !found.contains(&api) {
                found.push(api);
            }
        }
        found
    }

    fn is_known(&self, host: &str) -> bool {
        family(host).is_some() && family(host) == family(&self.server.host)
    }
}

/// What the hosts of one owner share: the network, or `acme` in
/// `acme.eu1.cloud.thethings.industries`.
fn family(host: &str) -> Option<&str> {
    if COMMUNITY_HOSTS.contains(&host) {
        return Some("The Things Network");
    }
    let (tenant, region) = host.strip_suffix(CLOUD_SUFFIX)?.split_once('.')?;
    (!region.contains('.') && !host.contains('_')).then_some(tenant)
}

/// `scheme://host[:port]/path` as scheme (`https` where there is none), `host[:port]` and path.
fn split(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    (scheme, authority, path)
}

/// Splits `host[:port]`; the host of `[::1]:443` comes without its brackets.
pub fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_ipv6 = |(host, _): &(&str, &str)| host.parse::<Ipv6Addr>().is_ok();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(is_ipv6)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match port.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => port.is_empty().then_some((host, None)),
    }
}

/// A host as it is compared: lower case, no trailing dot; nothing that is no host name or
/// IP address. Names of private networks may have underscores.
fn normalize(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_allowed);
    let is_valid = host.split('.').all(is_label);
    is_valid.then(|| host.to_ascii_lowercase())
}

/// At most 80 characters; `?` for what is not visible ASCII.
fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().map(visible).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 5] = [
        "stack.example.com",
        "::1",
        "other.example.com:8885",
        "alias.example.com=https://stack.example.com:8885",
        "[fd00::1]:8885",
    ];

    fn hosts(server: &str, allowed: &[&str]) -> KnownHosts {
        let allowed = allowed.iter().map(|text| AllowedHost::parse(text).unwrap());
        KnownHosts::new(BaseUrl::parse(server).unwrap(), allowed.collect())
    }

    #[track_caller]
    fn check(server: &str, address: &str, expected: Result<&str, &str>) {
        let hosts = hosts(server, &ALLOWED);
        let actual = hosts.api_of(address).map(|url| url.to_string());
        assert_eq!(
            actual.as_deref().map_err(String::as_str),
            expected,
            "{address} seen from {server}"
        );
    }

    const EU1: &str = "https://eu1.cloud.thethings.network";
    const NAM1: &str = "https://nam1.cloud.thethings.network";

    #[test]
    fn clusters_of_the_community_network_belong_together() {
        check(EU1, "", Ok(EU1));
        check(EU1, "eu1.cloud.thethings.network", Ok(EU1));
        check(EU1, "nam1.cloud.thethings.network", Ok(NAM1));
        check(EU1, "mqtts://nam1.cloud.thethings.network:8883", Ok(NAM1));
        check(EU1, "NAM1.Cloud.TheThings.Network.", Ok(NAM1));
        check(EU1, " nam1.cloud.thethings.network:1700 ", Ok(NAM1));
        check(EU1, "https://nam1.cloud.thethings.network/path", Ok(NAM1));
    }

    #[test]
    fn the_server_itself_is_asked_at_the_url_as_given() {
        let own = "http://127.0.0.1:1885";
        check(own, "127.0.0.1", Ok(own));
        check(own, "127.0.0.1:1700", Ok(own));
        check(own, "udp://127.0.0.1:1700", Ok(own));
        check("https://[::1]:8885", "[::1]:1700", Ok("https://[::1]:8885"));
    }

    #[test]
    fn hosts_that_the_operator_named_are_asked_over_https() {
        check(
            EU1,
            "stack.example.com:1700",
            Ok("https://stack.example.com"),
        );
        check(
            EU1,
            "http://stack.example.com:1885",
            Ok("https://stack.example.com"),
        );
        check(EU1, "[::1]:1885", Ok("https://[::1]"));
        let other = "https://other.example.com:8885";
        check(EU1, "mqtts://other.example.com:8883", Ok(other));
        check(EU1, "[fd00::1]", Ok("https://[fd00::1]:8885"));
    }

    #[test]
    fn an_alias_is_asked_at_its_url() {
        let api = "https://stack.example.com:8885";
        check(EU1, "alias.example.com", Ok(api));
        check(EU1, "ALIAS.example.com.:1700", Ok(api));
        // More is known of it than that it is the server.
        check("http://alias.example.com", "alias.example.com", Ok(api));
        let own = "http://stack.example.com:1885";
        check(own, "stack.example.com", Ok(own));
    }

    #[track_caller]
    fn check_candidates(server: &str, allowed: &[&str], expected: &[&str]) {
        let found = hosts(server, allowed).candidates();
        let found: Vec<String> = found.iter().map(BaseUrl::to_string).collect();
        assert_eq!(found, expected, "{server} {allowed:?}");
    }

    #[test]
    fn candidates_are_the_server_its_clusters_and_the_allowed_apis_each_once() {
        let au1 = "https://au1.cloud.thethings.network";
        check_candidates(EU1, &[], &[EU1, NAM1, au1]);
        check_candidates(NAM1, &[], &[NAM1, EU1, au1]);
        let own = "http://127.0.0.1:1885";
        check_candidates(own, &["127.0.0.1"], &[own]);
        let allowed = ["b:1", "a=https://b:1", "c=http://d", "b:1"];
        check_candidates(own, &allowed, &[own, "https://b:1", "http://d"]);
        check_candidates(
            EU1,
            &["nam1.cloud.thethings.network", "z"],
            &[EU1, NAM1, au1, "https://z"],
        );
    }

    #[test]
    fn an_address_names_a_host_or_does_not() {
        for address in ["", " ", "mqtts://", "/path"] {
            assert!(!KnownHosts::names_host(address), "{address:?}");
        }
        for address in ["a", "udp://a:1700", "@", "evil.example/"] {
            assert!(KnownHosts::names_host(address), "{address:?}");
        }
    }

    #[test]
    fn what_is_neither_a_host_nor_an_alias_is_refused() {
        for text in [
            "",
            "a/b",
            "https://a",
            "a:b",
            "a:1:2",
            "=https://a",
            "a=",
            "a=ftp://b",
            "a:1=https://b",
            "a=https://u:p@b",
            "[::1",
        ] {
            assert!(AllowedHost::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tenant_is_at_home_in_every_region_and_in_no_other_tenant() {
        let own = "https://acme.eu1.cloud.thethings.industries";
        let other = "https://acme.nam1.cloud.thethings.industries";
        check(own, "acme.nam1.cloud.thethings.industries", Ok(other));
        for host in [
            "evil.eu1.cloud.thethings.industries",
            "a.acme.eu1.cloud.thethings.industries",
            "eu1.cloud.thethings.industries",
            "eu1.cloud.thethings.network",
        ] {
            check(own, host, Err(host));
        }
    }

    #[test]
    fn hosts_that_only_look_alike_get_nothing() {
        for host in [
            "eu2.cloud.thethings.network",
            "eu1.cloud.thethings.network.evil.example",
            "evilcloud.thethings.network",
            "cloud.thethings.network",
            "a.b.cloud.thethings.network",
            "acme.eu1.cloud.thethings.industries",
            "stack.example.com.evil.example",
            "10.0.0.1",
            "e_u1.cloud.thethings.network",
            "other.example.com.evil.example",
            "alias",
        ] {
            check(EU1, host, Err(host));
        }
        check(EU1, "[fe80::1]:443", Err("fe80::1"));
        check(
            EU1,
            "x@nam1.cloud.thethings.network",
            Err("x@nam1.cloud.thethings.network"),
        );
        check(
            EU1,
            "nam1.cloud.thethings.network@evil",
            Err("nam1.cloud.thethings.network@evil"),
        );
        check(
            EU1,
            "nam1.cloud.thethings.network:80:x",
            Err("nam1.cloud.thethings.network:80:x"),
        );
        check(
            EU1,
            "nam1.cloud.thethings.network:99999",
            Err("nam1.cloud.thethings.network:99999"),
        );
        check(
            EU1,
            "nam1.cloud.thethings.network..",
            Err("nam1.cloud.thethings.network.."),
        );
        check(
            EU1,
            "evil\\.cloud.thethings.network",
            Err("evil\\.cloud.thethings.network"),
        );
        check(
            EU1,
            "e\u{301}\n.cloud.thethings.network",
            Err("e??.cloud.thethings.network"),
        );
        check(
            EU1,
            ".cloud.thethings.network",
            Err(".cloud.thethings.network"),
        );
        check(EU1, "//nam1.cloud.thethings.network", Err(""));
    }

    #[track_caller]
    fn check_server(text: &str, expected: Result<&str, &str>) {
        let actual = BaseUrl::parse(text).map(|url| url.to_string());
        assert_eq!(
            actual.as_deref().map_err(|problem| *problem),
            expected,
            "{text}"
        );
    }

    #[test]
    fn a_server_is_a_scheme_and_a_host() {
        check_server(EU1, Ok(EU1));
        check_server("eu1.cloud.thethings.network", Ok(EU1));
        check_server("HTTPS://EU1.cloud.thethings.network./", Ok(EU1));
        check_server("https://eu1.cloud.thethings.network/api/v3/", Ok(EU1));
        check_server("http://localhost:1885", Ok("http://localhost:1885"));
        check_server("https://[::1]", Ok("https://[::1]"));
        check_server("https://my_stack.lan", Ok("https://my_stack.lan"));
        check_server("ftp://a", Err("is neither an https nor an http URL"));
        check_server("https://", Err("has no valid host name"));
        check_server("https://a b", Err("has no valid host name"));
        check_server("https://a:b", Err("has no valid port"));
        check_server(
            "https://a/console",
            Err("has a path: give the scheme and the host alone"),
        );
        let user = "has user information, which belongs into no URL";
        check_server("https://user:secret@eu1.cloud.thethings.network", Err(user));
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("localhost", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(
                BaseUrl::parse(host).unwrap().is_loopback(),
                expected,
                "{host}"
            );
        }
    }
}
