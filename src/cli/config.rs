//! What the command line and its environment variables ask for, validated. Pure: opening
//! what the text names comes later.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::assets;
use crate::cli::flags::{FLAGS, Given, KEY_PREFIX, Value, help};
use crate::collect::Scope;
use crate::secret::Secret;
use crate::things_stack::{AllowedHost, BaseUrl, KnownHosts, ProxyRule};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Write this to standard output.
    Print(String),
    Run(Box<Config>),
}

/// Where the API key comes from.
#[derive(Debug)]
pub enum KeySource {
    Given(Secret),
    File(PathBuf),
}

/// Everything that can be set, valid.
#[derive(Debug)]
pub struct Config {
    /// `ADDRESS:PORT`; an empty address means all interfaces.
    pub listen: (String, u16),
    pub key: KeySource,
    pub server: BaseUrl,
    pub hosts: KnownHosts,
    pub scope: Scope,
    /// Gateways that are neither asked for nor shown.
    pub exclude: BTreeSet<String>,
    /// Whether to read and show where gateways are.
    pub locations: bool,
    /// The authorities to trust instead of the built-in ones.
    pub ca_file: Option<PathBuf>,
    pub web_token_file: Option<PathBuf>,
    /// How long stats are kept; zero: no longer than for one scrape.
    pub ttl: Duration,
    /// How long the list of gateways is kept; zero: no longer than for one scrape.
    pub list_ttl: Duration,
    /// The limit for one request to the API, 0.1 to 300 s.
    pub timeout: Duration,
    pub once: bool,
    pub verbose: bool,
    /// Whether `--password` was given, which is ignored.
    pub has_password: bool,
    pub proxy: Option<ProxyRule>,
}

/// Reads the command line (without the program's name) and the environment.
///
/// # Errors
/// Names the first flag or variable that cannot be understood, and its value. That may be a key:
/// [`without_key`](crate::cli::without_key) makes it fit to be shown.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let given = Given::from_command_line(arguments).map_err(|error| error.to_string())?;
    for flag in FLAGS.iter().filter(|flag| flag.value.is_none()) {
        given.is_on(flag.name)?;
    }
    if given.is_on("help")? {
        return Ok(Command::Print(help()));
    }
    if given.is_on("version")? {
        let version = concat!("ttn-gateway-exporter ", env!("CARGO_PKG_VERSION"), "\n");
        return Ok(Command::Print(version.to_owned()));
    }
    if let Some(value) = given.last("print") {
        let problem = || value.problem(&format!("is none of {}", assets::NAMES.join(", ")));
        return assets::text(&value.text)
            .map(Command::Print)
            .ok_or_else(problem);
    }
    let given = given.or_from_environment(&variable)?;
    let config = given.into_config(ProxyRule::from_environment(variable)?)?;
    Ok(Command::Run(Box::new(config)))
}

/// What the raw values mean. Each problem names the flag and the value.
impl Given {
    fn into_config(self, proxy: Option<ProxyRule>) -> Result<Config, String> {
        let server = self.api(self.required("server")?, BaseUrl::parse, |url| url)?;
        let allowed = self.all("allow-host").iter();
        let allowed = allowed.map(|value| self.api(value, AllowedHost::parse, |host| &host.api));
        let hosts = KnownHosts::new(server.clone(), allowed.collect::<Result<_, _>>()?);
        let scope = self.scope()?;
        Ok(Config {
            listen: self.listen()?,
            key: self.key()?,
            server,
            hosts,
            exclude: self.exclude(&scope)?,
            scope,
            locations: !self.is_on("no-locations")?,
            ca_file: self.last("ca-file").map(Value::path).transpose()?,
            web_token_file: self.last("web-token-file").map(Value::path).transpose()?,
            ttl: self.seconds("ttl", 0.0, 86_400.0)?,
            list_ttl: self.seconds("list-ttl", 0.0, 86_400.0)?,
            timeout: self.seconds("timeout", 0.1, 300.0)?,
            once: self.is_on("once")?,
            verbose: self.is_on("verbose")?,
            has_password: self.has("password"),
            proxy,
        })
    }

    fn key(&self) -> Result<KeySource, String> {
        match (self.last("key"), self.last("key-file")) {
            (Some(key), Some(file)) => Err(format!(
                "{} and {} are both given: only one API key can be used",
                key.source, file.source
            )),
            (Some(key), None) => {
                let problem = |problem| format!("{}: the API key {problem}", key.source);
                let secret = Secret::new(&key.text).map_err(problem)?;
                Ok(KeySource::Given(secret))
            }
            (None, Some(file)) if file.text.starts_with(KEY_PREFIX) => {
                Err(file.problem("is a key"))
            }
            (None, Some(file)) => file.path().map(KeySource::File),
            (None, None) => Err(
                "Provide API key! Use --key-file FILE or set TTN_API_KEY; --help says more"
                    .to_owned(),
            ),
        }
    }

    fn listen(&self) -> Result<(String, u16), String> {
        let value = self.required("listen")?;
        let text = &value.text;
        if text.parse::<u16>().is_ok() {
            return Err(value.problem(&format!("is a port alone; use :{text}")));
        }
        let problem = || value.problem("is not ADDRESS:PORT, such as :9714 or 127.0.0.1:9714");
        let (address, port) = text.rsplit_once(':').ok_or_else(problem)?;
        let port = port.parse().map_err(|_| problem())?;
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        let bare = bare.filter(|bare| !bare.is_empty());
        if bare.is_none() && address.contains([':', '[', ']']) {
            return Err(problem());
        }
        Ok((bare.unwrap_or(address).to_owned(), port))
    }

    /// What `parse` makes of this value, whose `url` the API key may be sent to.
    fn api<T>(
        &self,
        value: &Value,
        parse: fn(&str) -> Result<T, &'static str>,
        url: fn(&T) -> &BaseUrl,
    ) -> Result<T, String> {
        let api = parse(&value.text).map_err(|problem| match value.text.contains('@') {
            // User information is not repeated: it holds a password.
            true => format!("{}: the URL {problem}", value.source),
            false => value.problem(problem),
        })?;
        let (url, is_http_allowed) = (url(&api), self.is_on("insecure-http")?);
        match url.is_https || url.is_loopback() || is_http_allowed {
            true => Ok(api),
            false => Err(value.problem(
                "would send the API key unencrypted; use https, or --insecure-http if you must",
            )),
        }
    }

    fn exclude(&self, scope: &Scope) -> Result<BTreeSet<String>, String> {
        let values = self.all("exclude");
        if let Scope::Gateways(ids) = scope
            && let Some(value) = values.iter().find(|value| ids.contains(&value.text))
        {
            return Err(value.problem("is a gateway that is to be watched as well"));
        }
        values.iter().map(Value::id).collect()
    }

    fn scope(&self) -> Result<Scope, String> {
        let gateways = self.all("gateway").iter().map(Value::id);
        let gateways: Vec<String> = gateways.collect::<Result<_, _>>()?;
        let organization = self.last("organization").map(Value::id).transpose()?;
        let user = self.last("user").map(Value::id).transpose()?;
        match (gateways.is_empty(), organization, user) {
            (true, None, None) => Ok(Scope::Key),
            (true, Some(id), None) => Ok(Scope::Organization(id)),
            (true, None, Some(id)) => Ok(Scope::User(id)),
            (false, None, None) => Ok(Scope::Gateways(gateways)),
            _ => Err("--gateway, --organization and --user exclude each other".to_owned()),
        }
    }

    fn seconds(&self, name: &str, min: f64, max: f64) -> Result<Duration, String> {
        let value = self.required(name)?;
        match value.text.parse::<f64>() {
            Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(value.problem(&format!("is no number of seconds from {min} to {max}"))),
        }
    }
}

impl Value {
    /// An identifier of The Things Stack. It becomes part of a path, so nothing else may pass.
    fn id(&self) -> Result<String, String> {
        let id = &self.text;
        let is_valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        // The server answers 400 to others, which says nothing about the gateways asked with them.
        let has_stray_dash = id.starts_with('-') || id.ends_with('-') || id.contains("--");
        if (2..=36).contains(&id.len()) && id.bytes().all(is_valid) && !has_stray_dash {
            return Ok(id.clone());
        }
        let rule = "is no identifier: 2 to 36 of a-z, 0-9 and -, with no - at an end or doubled";
        Err(self.problem(rule))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_oneof};
    use proptest::sample::select;

    use super::*;
    use crate::cli::flags::{FLAGS, help, without_key};
    use crate::fuzz::mutations;

    const KEY: &str = "NNSXS.ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLM.SECRET";

    fn parse_line(line: &str, variables: &[(&str, &str)]) -> Result<Command, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        parse_shown(line.split_whitespace().map(OsString::from), variable)
    }

    /// With a problem as it is shown.
    fn parse_shown(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Command, String> {
        parse(arguments, variable).map_err(without_key)
    }

    #[track_caller]
    fn config(line: &str, variables: &[(&str, &str)]) -> Config {
        match parse_line(line, variables) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_refused(line: &str, expected: &str) {
        match parse_line(line, &[]) {
            Err(error) => assert_eq!(error.to_string(), expected),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let config = config("--key k", &[]);
        assert_eq!(config.listen, (String::new(), 9714));
        assert_eq!(
            config.server.to_string(),
            "https://eu1.cloud.thethings.network"
        );
        assert_eq!(config.scope, Scope::Key);
        assert_eq!(config.ttl, Duration::from_secs(10));
        assert_eq!(config.list_ttl, Duration::from_secs(300));
        assert_eq!(config.timeout, Duration::from_secs(5));
        assert!(!config.once && !config.verbose && !config.has_password);
    }

    #[test]
    fn every_flag_of_the_help_is_accepted_and_every_flag_is_in_the_help() {
        for flag in &FLAGS {
            let value = match flag.name {
                "listen" => ":1",
                "print" => "unit",
                "ttl" | "list-ttl" | "timeout" => "7",
                "key" | "key-file" => "key",
                "allow-host" => "stack=https://stack:8885",
                _ => "some",
            };
            let value = flag.value.map_or("", |_| value);
            let key = if flag.name.starts_with("key") {
                ""
            } else {
                "--key k"
            };
            parse_line(&format!("{key} --{} {value}", flag.name), &[]).unwrap();
            assert!(help().contains(&format!("--{}", flag.name)));
            assert!(help().contains(flag.variable.unwrap_or("")));
        }
        assert!(help().lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn every_value_flag_has_a_variable_that_it_wins_over() {
        let all = [
            ("TTN_LISTEN", "[::1]:1"),
            ("TTN_API_KEY", "variable"),
            ("TTN_SERVER", "https://stack.example.com"),
            ("TTN_GATEWAY", "gw-1, gw-2"),
            ("TTN_ALLOW_HOST", "a.example.com,b.example.com"),
            ("TTN_CA_FILE", "ca.pem"),
            ("TTN_TTL", "1"),
            ("TTN_LIST_TTL", "2"),
            ("TTN_TIMEOUT", "3"),
            ("TTN_WEB_TOKEN_FILE", "token"),
        ];
        let from_variables = config("", &all);
        assert_eq!(from_variables.listen, ("::1".to_owned(), 1));
        let gateways = vec!["gw-1".to_owned(), "gw-2".to_owned()];
        assert_eq!(from_variables.scope, Scope::Gateways(gateways));
        assert_eq!(from_variables.timeout, Duration::from_secs(3));
        assert_eq!(from_variables.ca_file, Some(PathBuf::from("ca.pem")));
        assert!(from_variables.hosts.api_of("b.example.com").is_ok());
        let line = "--listen 127.0.0.1:2 --key-file f --organization org --ttl 9";
        let from_flags = config(line, &all);
        assert_eq!(from_flags.listen, ("127.0.0.1".to_owned(), 2));
        assert!(matches!(from_flags.key, KeySource::File(file) if file == *"f"));
        assert_eq!(from_flags.scope, Scope::Organization("org".to_owned()));
        assert_eq!(from_flags.ttl, Duration::from_secs(9));
    }

    #[test]
    fn the_forms_of_the_python_script_work() {
        for line in [
            "--listen :1 --key k --verbose",
            "--listen=:1 --key=k --verbose=true",
            "-listen :1 -key k -verbose",
            "-listen=:1 -key=k -v",
            "-listen=:1 -key=k -noisy",
        ] {
            match parse_line(line, &[]) {
                Ok(Command::Run(config)) => {
                    assert_eq!(config.listen.1, 1, "{line}");
                    assert!(config.verbose, "{line}");
                }
                other => assert!(line.contains("noisy"), "{line}: {other:?}"),
            }
        }
        for (argument, is_verbose) in [
            ("--verbose=True", true),
            ("-verbose=T", true),
            ("--verbose=1", true),
            ("--noverbose --verbose", true),
            ("--verbose=False", false),
            ("--verbose=f", false),
            ("--verbose --noverbose", false),
            ("-v -noverbose", false),
        ] {
            let config = config(&format!("--key k {argument}"), &[]);
            assert_eq!(config.verbose, is_verbose, "{argument}");
        }
        assert!(!config("--key k --nohelp --noversion", &[]).once);
        assert!(config("--key k -password p", &[]).has_password);
        let KeySource::Given(key) = config("-key -listen", &[]).key else {
            panic!("the value of a flag is no flag");
        };
        assert_eq!(key.reveal(), "-listen");
    }

    #[test]
    fn a_switch_is_on_or_off_whatever_else_is_asked_for() {
        for line in ["--once=maybe --print unit", "--once=maybe --once --help"] {
            check_refused(line, r#"--once "maybe": is neither true nor false"#);
        }
    }

    #[test]
    fn empty_brackets_are_no_address() {
        check_refused(
            "--key k --listen []:9714",
            r#"--listen "[]:9714": is not ADDRESS:PORT, such as :9714 or 127.0.0.1:9714"#,
        );
    }

    #[test]
    fn bad_usage_names_the_flag_and_the_value() {
        check_refused(
            "--key k --listen 9714",
            r#"--listen "9714": is a port alone; use :9714"#,
        );
        check_refused(
            "--key k --listen ::1:9714",
            r#"--listen "::1:9714": is not ADDRESS:PORT, such as :9714 or 127.0.0.1:9714"#,
        );
        check_refused(
            "--key k --ttl soon",
            r#"--ttl "soon": is no number of seconds from 0 to 86400"#,
        );
        check_refused(
            "--key k --timeout inf",
            r#"--timeout "inf": is no number of seconds from 0.1 to 300"#,
        );
        check_refused(
            "--key k --gateway A/B",
            r#"--gateway "A/B": is no identifier: 2 to 36 of a-z, 0-9 and -, with no - at an end or doubled"#,
        );
        check_refused(
            "--key k --allow-host a/b",
            r#"--allow-host "a/b": is a URL: use HOST[:PORT], or NAME=URL"#,
        );
    }

    #[test]
    fn bad_usage_names_what_is_wrong_with_the_server_the_switches_or_the_words() {
        check_refused(
            "--key k --gateway gw --user me",
            "--gateway, --organization and --user exclude each other",
        );
        check_refused(
            "--key k --key-file f",
            "--key and --key-file are both given: only one API key can be used",
        );
        check_refused(
            "--key k --server ftp://a",
            r#"--server "ftp://a": is neither an https nor an http URL"#,
        );
        check_refused(
            "--key k --server https://u:p@a",
            "--server: the URL has user information, which belongs into no URL",
        );
        check_refused(
            "--key k --server http://10.0.0.1",
            r#"--server "http://10.0.0.1": would send the API key unencrypted; use https, or --insecure-http if you must"#,
        );
        check_refused(
            "--key k --once=maybe",
            r#"--once "maybe": is neither true nor false"#,
        );
        check_refused(
            "--print nothing",
            r#"--print "nothing": is none of dashboard, alerts, scrape-config, unit"#,
        );
        check_refused(
            "--key k --unknown",
            "invalid option '--unknown'; --help lists the options",
        );
        check_refused(
            "--key k extra",
            r#"unexpected argument "extra"; --help lists the options"#,
        );
        check_refused("--key", "missing argument for option '--key'");
    }

    #[test]
    fn bad_usage_is_told_on_one_line_that_no_terminal_obeys() {
        for argument in ["--a\nb", "--\u{1b}[31m", "a\nb", "--once=\n", "-\n"] {
            let arguments = ["--key", "k", argument].map(OsString::from);
            let error = parse_shown(arguments, |_| None).unwrap_err();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn an_empty_name_of_a_file_is_bad_usage() {
        for (line, flag) in [
            ("--key-file=", "--key-file"),
            ("--key k --ca-file=", "--ca-file"),
            ("--key k --web-token-file=", "--web-token-file"),
        ] {
            check_refused(line, &format!("{flag} \"\": names no file"));
        }
    }

    #[test]
    fn what_is_not_utf_8_is_refused_and_not_repeated() {
        let hostile = || OsString::from_vec(b"secret\xff".to_vec());
        let arguments = ["--key-file".into(), hostile()];
        let problem = parse(arguments, |_| None).unwrap_err();
        assert_eq!(problem, "--key-file is not UTF-8");
        let variable = |name: &str| (name == "TTN_API_KEY").then(hostile);
        let problem = parse([], variable).unwrap_err();
        assert_eq!(problem, "TTN_API_KEY is not UTF-8");
    }

    #[track_caller]
    fn check_variable_refused(name: &str, value: &str, expected: &str) {
        match parse_line("--key k", &[(name, value)]) {
            Err(error) => assert_eq!(error.to_string(), expected),
            other => panic!("{name}={value}: {other:?}"),
        }
    }

    #[test]
    fn a_variable_that_says_nothing_is_an_error_and_an_empty_one_is_none() {
        for name in ["TTN_GATEWAY", "TTN_EXCLUDE", "TTN_ALLOW_HOST"] {
            for value in [" , ", " ", ","] {
                let expected = format!("{name} {value:?}: is set but names nothing");
                check_variable_refused(name, value, &expected);
            }
            config("--key k", &[(name, "")]);
        }
        for name in ["TTN_INSECURE_HTTP", "TTN_NO_LOCATIONS"] {
            for value in ["maybe", " "] {
                let expected = format!("{name} {value:?}: is neither true nor false");
                check_variable_refused(name, value, &expected);
            }
        }
        check_refused(
            "--key k --gateway=",
            r#"--gateway "": is no identifier: 2 to 36 of a-z, 0-9 and -, with no - at an end or doubled"#,
        );
    }

    #[test]
    fn switches_have_variables_and_flags_win_over_them() {
        let http = "--key k --server http://10.0.0.1";
        config(http, &[("TTN_INSECURE_HTTP", "true")]);
        config(http, &[("TTN_INSECURE_HTTP", "1")]);
        for value in ["false", "0", ""] {
            assert!(parse_line(http, &[("TTN_INSECURE_HTTP", value)]).is_err());
        }
        let line = format!("{http} --noinsecure-http");
        assert!(parse_line(&line, &[("TTN_INSECURE_HTTP", "1")]).is_err());
        assert!(config("--key k", &[]).locations);
        assert!(!config("--key k --no-locations", &[]).locations);
        assert!(!config("--key k", &[("TTN_NO_LOCATIONS", "1")]).locations);
    }

    #[test]
    fn excluded_gateways_are_a_set_of_identifiers() {
        let from_flags = config("--key k --exclude gw-2 --exclude gw-1 --exclude gw-2", &[]);
        let expected = BTreeSet::from(["gw-1".to_owned(), "gw-2".to_owned()]);
        assert_eq!(from_flags.exclude, expected);
        let from_variable = config("--key k", &[("TTN_EXCLUDE", "gw-1, gw-2,")]);
        assert_eq!(from_variable.exclude, expected);
        check_refused(
            "--key k --exclude A",
            r#"--exclude "A": is no identifier: 2 to 36 of a-z, 0-9 and -, with no - at an end or doubled"#,
        );
        check_refused(
            "--key k --gateway gw-1 --exclude gw-1",
            r#"--exclude "gw-1": is a gateway that is to be watched as well"#,
        );
    }

    #[test]
    fn no_memory_and_long_timeouts_can_be_asked_for() {
        let config = config("--key k --ttl 0 --list-ttl 0 --timeout 300", &[]);
        assert_eq!((config.ttl, config.list_ttl), Default::default());
        assert_eq!(config.timeout, Duration::from_secs(300));
    }

    #[test]
    fn an_allowed_host_over_http_needs_the_flag_and_a_password_is_not_repeated() {
        let line = "--key k --allow-host a=http://10.0.0.1:1885";
        let problem = parse_line(line, &[]).unwrap_err().to_string();
        assert!(problem.contains("--insecure-http"), "{problem}");
        let hosts = config(&format!("{line} --insecure-http"), &[]).hosts;
        let api = hosts.api_of("a").unwrap().to_string();
        assert_eq!(api, "http://10.0.0.1:1885");
        let line = "--key k --allow-host a=https://u:hunter2@b";
        let problem = parse_line(line, &[]).unwrap_err().to_string();
        assert!(!problem.contains("hunter2"), "{problem}");
    }

    #[test]
    fn without_a_key_the_error_says_how_to_give_one() {
        check_refused(
            "",
            "Provide API key! Use --key-file FILE or set TTN_API_KEY; --help says more",
        );
    }

    #[test]
    fn a_key_is_never_repeated() {
        for line in [
            "--key KEYé",
            "--key-file KEY",
            "KEY",
            "--KEY",
            "--ttl KEY",
            "--print KEY",
            "--key k --gateway KEY",
        ] {
            let message = parse_line(&line.replace("KEY", KEY), &[])
                .unwrap_err()
                .to_string();
            assert!(!message.contains("SECRET"), "{line}: {message}");
        }
        let printed = format!("{:?}", parse_line(&format!("--key {KEY}"), &[]));
        assert!(
            printed.contains("Secret(***)") && !printed.contains("SECRET"),
            "{printed}"
        );
    }

    #[test]
    fn plain_http_is_for_this_machine_or_for_who_insists() {
        config("--key k --server http://127.0.0.1:1885", &[]);
        config("--key k --server http://10.0.0.1 --insecure-http", &[]);
    }

    #[test]
    fn property_random_arguments_never_panic_and_never_repeat_a_key() {
        const WORDS: [&str; 23] = [
            "--",
            "-",
            "-key",
            "--key",
            "=",
            "--key=",
            "-v",
            "--ttl",
            "-vvv",
            "é",
            "1",
            "--once=",
            "-h=1",
            "--listen",
            "[::1]:1",
            ":",
            "--server",
            "https://a@b",
            "--gateway",
            "--print",
            "--allow-host",
            "--ca-file",
            KEY,
        ];
        let pieces: &[&[u8]] = &[b"-", b"=", b":", b"\xff", b"99999"];
        let word = || select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec());
        let words = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
        let argument = prop_oneof![3 => word(), 1 => mutations(words, pieces)];
        let arguments = vec(argument.prop_map(OsString::from_vec), 0..6);
        crate::fuzz::check(20_000, arguments, |arguments| {
            if let Err(line) = parse_shown(arguments, |_| None) {
                assert!(!line.contains(KEY) && !line.contains('\n'), "{line:?}");
            }
        });
    }
}
