//! The flags: one table that parsing, help and tests share, and the raw values that the
//! command line and the environment give them. Pure; it knows nothing of what a value means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// A message fit for one line, or in its place another one if it holds an API key.
pub fn without_key(message: impl fmt::Display) -> String {
    let message = message.to_string();
    if message.contains(KEY_PREFIX) {
        return "an API key stands where none belongs: use --key-file FILE or --key KEY".to_owned();
    }
    // What was typed may hold a line break, or what a terminal takes for a command.
    message.replace(char::is_control, "\u{fffd}")
}

/// How API keys of The Things Stack begin.
pub const KEY_PREFIX: &str = "NNSXS.";

/// One flag of the command line.
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    /// What its value is called; a switch has none.
    pub value: Option<&'static str>,
    pub variable: Option<&'static str>,
    pub default: Option<&'static str>,
    /// Whether the variable holds several values, with commas between them.
    is_list: bool,
    pub help: &'static str,
}

/// What a flag is unless its row says otherwise.
const SWITCH: Flag = Flag {
    name: "",
    short: None,
    value: None,
    variable: None,
    default: None,
    is_list: false,
    help: "",
};

/// Each flag with its help. What configures a service has a variable; what is for one run by hand
/// has none.
#[rustfmt::skip]
pub const FLAGS: [Flag; 22] = [
    Flag { name: "listen", value: Some("ADDRESS:PORT"), variable: Some("TTN_LISTEN"), default: Some(":9714"), help: "where to serve /metrics; without an address on all interfaces", ..SWITCH },
    Flag { name: "key", value: Some("KEY"), variable: Some("TTN_API_KEY"), help: "API key; every user of this machine can see it in the process list, so use --key-file instead", ..SWITCH },
    Flag { name: "key-file", value: Some("FILE"), variable: Some("TTN_API_KEY_FILE"), help: "file with the API key; read again when the key is refused and when the list is renewed", ..SWITCH },
    Flag { name: "server", value: Some("URL"), variable: Some("TTN_SERVER"), default: Some("https://eu1.cloud.thethings.network"), help: "the cluster that lists the gateways", ..SWITCH },
    Flag { name: "gateway", value: Some("ID"), variable: Some("TTN_GATEWAY"), is_list: true, help: "watch only this gateway (repeatable); required for a gateway's own API key, which cannot list gateways", ..SWITCH },
    Flag { name: "organization", value: Some("ID"), variable: Some("TTN_ORGANIZATION"), help: "watch the gateways of this organization", ..SWITCH },
    Flag { name: "user", value: Some("ID"), variable: Some("TTN_USER"), help: "watch the gateways of this user", ..SWITCH },
    Flag { name: "exclude", value: Some("ID"), variable: Some("TTN_EXCLUDE"), is_list: true, help: "do not watch this gateway (repeatable)", ..SWITCH },
    Flag { name: "no-locations", variable: Some("TTN_NO_LOCATIONS"), help: "do not read or show where gateways are", ..SWITCH },
    Flag { name: "allow-host", value: Some("HOST[:PORT]|NAME=URL"), variable: Some("TTN_ALLOW_HOST"), is_list: true, help: "another host that the API key may be sent to (repeatable): https://HOST[:PORT] for gateways whose server address is HOST, or URL for gateways whose server address is NAME", ..SWITCH },
    Flag { name: "insecure-http", variable: Some("TTN_INSECURE_HTTP"), help: "allow http:// URLs beyond this machine; anyone on the way can read the API key", ..SWITCH },
    Flag { name: "ca-file", value: Some("FILE"), variable: Some("TTN_CA_FILE"), help: "PEM file with the certificate authorities to trust instead of the built-in ones", ..SWITCH },
    Flag { name: "ttl", value: Some("SECONDS"), variable: Some("TTN_TTL"), default: Some("10"), help: "how long stats are kept; 0 reads them anew for each scrape", ..SWITCH },
    Flag { name: "list-ttl", value: Some("SECONDS"), variable: Some("TTN_LIST_TTL"), default: Some("300"), help: "how long the list of gateways is kept; 0 reads it anew for each scrape", ..SWITCH },
    Flag { name: "timeout", value: Some("SECONDS"), variable: Some("TTN_TIMEOUT"), default: Some("5"), help: "limit for one request to the API, at most 300; a scrape without a timeout of its own may take twice that", ..SWITCH },
    Flag { name: "web-token-file", value: Some("FILE"), variable: Some("TTN_WEB_TOKEN_FILE"), help: "file with a token that clients must send: Authorization: Bearer TOKEN, or Basic with any user and TOKEN as the password", ..SWITCH },
    Flag { name: "once", help: "print the metrics to standard output and exit: 0 if everything was read, 1 if not", ..SWITCH },
    Flag { name: "print", value: Some("WHAT"), help: "print a built-in file: dashboard, alerts, scrape-config or unit", ..SWITCH },
    Flag { name: "verbose", short: Some('v'), help: "log every step, whatever RUST_LOG says", ..SWITCH },
    Flag { name: "help", short: Some('h'), help: "print this help", ..SWITCH },
    Flag { name: "version", short: Some('V'), help: "print the version", ..SWITCH },
    Flag { name: "password", value: Some("PASSWORD"), help: "ignored; the Python script had it", ..SWITCH },
];

/// Flags that say the same thing in other ways: where one of them is given, the variables of all
/// are ignored.
const ALTERNATIVES: [&[&str]; 2] = [&["key", "key-file"], &["gateway", "organization", "user"]];

/// The help text: usage, every flag with its variable and default, examples.
pub fn help() -> String {
    let flags: String = FLAGS.iter().map(Flag::help_entry).collect();
    format!(
        "Serves the state of LoRaWAN gateways on The Things Stack as Prometheus metrics.\n\n\
         Usage: ttn-gateway-exporter --key-file FILE [OPTION]...\n\nOptions:\n{flags}\n\
         A flag wins over its variable. TTN_GATEWAY, TTN_EXCLUDE and TTN_ALLOW_HOST take\n\
         several values, separated by commas. The variables of switches take true or\n\
         false. https_proxy, all_proxy and no_proxy, in lower or upper case, work as for\n\
         curl, and RUST_LOG sets what is logged.\n\n\
         Examples:\n  \
         TTN_API_KEY=NNSXS.… ttn-gateway-exporter --once\n  \
         ttn-gateway-exporter --key-file /etc/ttn-gateway-exporter/api-key\n  \
         ttn-gateway-exporter --print dashboard > dashboard.json\n"
    )
}

impl Flag {
    fn help_entry(&self) -> String {
        let short = self.short.map_or("    ".into(), |c| format!("-{c}, "));
        let value = self.value.map_or(String::new(), |v| format!(" {v}"));
        // A word and its value stay on one line.
        let default = self.default.map(|d| format!("default\u{a0}{d}, "));
        let default = default.unwrap_or_default();
        let notes = self
            .variable
            .map(|v| format!(" [{default}variable\u{a0}{v}]"));
        let help = wrap(&(self.help.to_owned() + &notes.unwrap_or_default()));
        format!("  {short}--{}{value}\n{help}\n", self.name).replace('\u{a0}', " ")
    }
}

/// Breaks text into lines of at most 80 columns, indented by 10.
fn wrap(text: &str) -> String {
    let (mut lines, mut column) = (String::new(), 80);
    for word in text.split(' ') {
        let length = word.chars().count();
        let (space, start) = match column + 1 + length {
            0..=80 => (" ", column + 1),
            _ => ("\n          ", 10),
        };
        lines += space;
        lines += word;
        column = start + length;
    }
    lines.split_off(1)
}

/// One value and where it came from, for messages: `--ttl` or `TTN_TTL`.
pub struct Value {
    pub source: String,
    pub text: String,
}

/// Values by flag name.
pub struct Given(BTreeMap<&'static str, Vec<Value>>);

impl Given {
    pub fn from_command_line(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Given, lexopt::Error> {
        let mut given = Given(BTreeMap::new());
        let mut parser = lexopt::Parser::from_args(without_absl(arguments));
        while let Some(argument) = parser.next()? {
            let flag = match argument {
                lexopt::Arg::Long(name) => find(name),
                lexopt::Arg::Short(letter) => FLAGS.iter().find(|flag| flag.short == Some(letter)),
                lexopt::Arg::Value(_) => None,
            };
            let unexpected = || format!("{}; --help lists the options", argument.unexpected());
            let flag = flag.ok_or_else(unexpected)?;
            let text = match flag.value {
                Some(_) => parser.value()?,
                None => parser.optional_value().unwrap_or("true".into()),
            };
            let value = Value::new(format!("--{}", flag.name), text)?;
            given.0.entry(flag.name).or_default().push(value);
        }
        Ok(given)
    }

    /// Adds the variables, else the defaults, of the flags that were not given. A key on the
    /// command line wins over a key file in the environment and the other way round.
    ///
    /// # Errors
    /// If a variable that takes several values is set and has none. An empty variable is as good
    /// as none.
    pub fn or_from_environment(
        mut self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Given, String> {
        let open = FLAGS.iter().filter(|flag| !self.overrules(flag));
        for flag in open.collect::<Vec<_>>() {
            let set = flag.variable.and_then(&variable);
            let set = set.filter(|text| !text.is_empty());
            let Some(text) = set.or(flag.default.map(OsString::from)) else {
                continue;
            };
            let value = Value::new(flag.variable.unwrap_or(flag.name).to_owned(), text)?;
            let values = match flag.is_list {
                true => value.split_at_commas()?,
                false => vec![value],
            };
            self.0.insert(flag.name, values);
        }
        Ok(self)
    }

    /// Whether what is given leaves nothing to say for the variable of this flag.
    fn overrules(&self, flag: &Flag) -> bool {
        let groups = ALTERNATIVES.into_iter();
        let mut others = groups.filter(|names| names.contains(&flag.name)).flatten();
        self.has(flag.name) || others.any(|name| self.has(name))
    }

    /// Whether the switch is on: its last value counts, and each has to be one. It takes what absl takes for true and false.
    pub fn is_on(&self, name: &str) -> Result<bool, String> {
        let mut values = self.all(name).iter();
        values.try_fold(false, |_, value| match &*value.text.to_ascii_lowercase() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(value.problem("is neither true nor false")),
        })
    }

    /// Whether the flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a flag, in order.
    pub fn all(&self, name: &str) -> &[Value] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value of a flag, as absl has it.
    pub fn last(&self, name: &str) -> Option<&Value> {
        self.all(name).last()
    }

    /// The last value of a flag that has a default.
    pub fn required(&self, name: &str) -> Result<&Value, String> {
        let missing = || format!("--{name} is not set");
        self.last(name).ok_or_else(missing)
    }
}

impl Value {
    /// What is not UTF-8 is not repeated: it may be a key.
    fn new(source: String, text: OsString) -> Result<Value, String> {
        match text.into_string() {
            Ok(text) => Ok(Value { source, text }),
            Err(_) => Err(format!("{source} is not UTF-8")),
        }
    }

    /// The value as a path, which may not be empty.
    pub fn path(&self) -> Result<PathBuf, String> {
        match self.text.is_empty() {
            true => Err(self.problem("names no file")),
            false => Ok(PathBuf::from(&self.text)),
        }
    }

    /// The parts of a list; a list that names nothing would not limit what it should limit.
    fn split_at_commas(&self) -> Result<Vec<Value>, String> {
        let parts = self.text.split(',').map(|part| Value {
            source: self.source.clone(),
            text: part.trim().to_owned(),
        });
        let parts: Vec<_> = parts.filter(|part| !part.text.is_empty()).collect();
        match parts.is_empty() {
            true => Err(self.problem("is set but names nothing")),
            false => Ok(parts),
        }
    }

    /// What is wrong with this value.
    pub fn problem(&self, problem: &str) -> String {
        format!("{} {:?}: {problem}", self.source, self.text)
    }
}

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The Python script's absl took `-key=value` for `--key=value`, and `--noverbose` for
/// `--verbose=false`: every argument with one dash and the name of a flag gets its second dash,
/// unless it is the value of the flag before.
fn without_absl(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_value = false;
    arguments.into_iter().map(move |argument| {
        let text = argument.to_str().filter(|_| !is_value);
        is_value = false;
        let Some(name) = text.and_then(|text| text.strip_prefix('-')) else {
            return argument;
        };
        let long = name.strip_prefix('-').unwrap_or(name);
        let switch = long.strip_prefix("no").and_then(find);
        if let Some(switch) = switch.filter(|flag| flag.value.is_none()) {
            return format!("--{}=false", switch.name).into();
        }
        let (name, value) = long.split_once('=').unzip();
        let Some(flag) = find(name.unwrap_or(long)) else {
            return argument;
        };
        is_value = flag.value.is_some() && value.is_none();
        format!("--{long}").into()
    })
}
