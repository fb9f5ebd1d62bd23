//! The flags: one table that parsing, help and tests share, and the raw values that the
//! command line and the environment give them. Pure; it knows nothing of what a value means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Bad usage: one line that names the flag and the value. Never holds a key.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// A message that may repeat what was typed. A key in the wrong place is not repeated.
    pub fn new(message: impl fmt::Display) -> UsageError {
        UsageError(without_key(message))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message, or in its place another one if it holds an API key.
pub fn without_key(message: impl fmt::Display) -> String {
    let message = message.to_string();
    match message.contains(KEY_PREFIX) {
        true => "an API key stands where none belongs: use --key-file FILE or --key KEY".to_owned(),
        false => message,
    }
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
    pub help: &'static str,
}

const fn value_flag(
    name: &'static str,
    value: &'static str,
    variable: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        short: None,
        value: Some(value),
        variable: Some(variable),
        default,
        help,
    }
}

const fn switch(
    name: &'static str,
    short: Option<char>,
    variable: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        short,
        value: None,
        variable,
        default: None,
        help,
    }
}

/// What configures a service has a variable; what is for one run by hand has none.
#[rustfmt::skip]
pub const FLAGS: [Flag; 22] = [
    value_flag("listen", "ADDRESS:PORT", "TTN_LISTEN", Some(":9714"), "where to serve /metrics; without an address on all interfaces"),
    value_flag("key", "KEY", "TTN_API_KEY", None, "API key; every user of this machine can see it in the process list, so use --key-file instead"),
    value_flag("key-file", "FILE", "TTN_API_KEY_FILE", None, "file with the API key"),
    value_flag("server", "URL", "TTN_SERVER", Some("https://eu1.cloud.thethings.network"), "the cluster that lists the gateways"),
    value_flag("gateway", "ID", "TTN_GATEWAY", None, "watch only this gateway (repeatable); required for a gateway's own API key, which cannot list gateways"),
    value_flag("organization", "ID", "TTN_ORGANIZATION", None, "watch the gateways of this organization"),
    value_flag("user", "ID", "TTN_USER", None, "watch the gateways of this user"),
    value_flag("exclude", "ID", "TTN_EXCLUDE", None, "do not watch this gateway (repeatable)"),
    switch("no-locations", None, Some("TTN_NO_LOCATIONS"), "do not read or show where gateways are"),
    value_flag("allow-host", "HOST[:PORT]|NAME=URL", "TTN_ALLOW_HOST", None, "another host that the API key may be sent to (repeatable): https://HOST[:PORT] for gateways whose server address is HOST, or URL for gateways whose server address is NAME"),
    switch("insecure-http", None, Some("TTN_INSECURE_HTTP"), "allow http:// URLs beyond this machine; anyone on the way can read the API key"),
    value_flag("ca-file", "FILE", "TTN_CA_FILE", None, "PEM file with the certificate authorities to trust instead of the built-in ones"),
    value_flag("ttl", "SECONDS", "TTN_TTL", Some("10"), "how long stats are kept; 0 reads them anew for each scrape"),
    value_flag("list-ttl", "SECONDS", "TTN_LIST_TTL", Some("300"), "how long the list of gateways is kept; 0 reads it anew for each scrape"),
    value_flag("timeout", "SECONDS", "TTN_TIMEOUT", Some("5"), "limit for one request to the API, at most 300; a scrape without a timeout of its own may take twice that"),
    value_flag("web-token-file", "FILE", "TTN_WEB_TOKEN_FILE", None, "file with a token that clients must send: Authorization: Bearer TOKEN"),
    switch("once", None, None, "print the metrics to standard output and exit: 0 if everything was read, 1 if not"),
    Flag { name: "print", short: None, value: Some("WHAT"), variable: None, default: None, help: "print a built-in file: dashboard, alerts, scrape-config or unit" },
    switch("verbose", Some('v'), None, "log every step, whatever RUST_LOG says"),
    switch("help", Some('h'), None, "print this help"),
    switch("version", Some('V'), None, "print the version"),
    Flag { name: "password", short: None, value: Some("PASSWORD"), variable: None, default: None, help: "ignored; the Python script had it" },
];

/// The help text: usage, every flag with its variable and default, examples.
pub fn help() -> String {
    let mut text = String::from(
        "Serves the state of LoRaWAN gateways on The Things Stack as Prometheus metrics.\n\n\
         Usage: ttn-gateway-exporter --key-file FILE [OPTION]...\n\nOptions:\n",
    );
    for flag in &FLAGS {
        text.push_str(&flag.help_entry());
    }
    text.push_str(
        "\nA flag wins over its variable. TTN_GATEWAY, TTN_EXCLUDE and TTN_ALLOW_HOST take\n\
         several values, separated by commas. The variables of switches take true or\n\
         false. https_proxy, all_proxy and no_proxy, in lower or upper case, work as for\n\
         curl, and RUST_LOG sets what is logged.\n\n\
         Examples:\n  \
         TTN_API_KEY=NNSXS.… ttn-gateway-exporter --once\n  \
         ttn-gateway-exporter --key-file /etc/ttn-gateway-exporter/api-key\n  \
         ttn-gateway-exporter --print dashboard > dashboard.json\n",
    );
    text
}

impl Flag {
    fn help_entry(&self) -> String {
        let short = self.short.map_or("    ".into(), |c| format!("-{c}, "));
        let value = self.value.map_or(String::new(), |v| format!(" {v}"));
        let mut notes = Vec::new();
        notes.extend(self.default.map(|default| format!("default {default}")));
        notes.extend(self.variable.map(|variable| format!("variable {variable}")));
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!(" [{}]", notes.join(", ")),
        };
        let text = format!("{}{notes}", self.help);
        let indent = "          ";
        format!("  {short}--{}{value}\n{}\n", self.name, wrap(&text, indent))
    }
}

/// Breaks text into lines of at most 80 columns, each behind `indent`.
fn wrap(text: &str, indent: &str) -> String {
    let mut lines = vec![indent.to_owned()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, String::len);
        if line > indent.len() && line + word.len() >= 80 {
            lines.push(indent.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// One value and where it came from, for messages: `--ttl` or `TTN_TTL`.
pub struct Value {
    pub source: String,
    pub text: OsString,
}

/// Values by flag name.
pub struct Given(BTreeMap<&'static str, Vec<Value>>);

impl Given {
    pub fn from_command_line(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Given, UsageError> {
        let mut given = Given(BTreeMap::new());
        let mut parser = lexopt::Parser::from_args(with_double_dashes(arguments));
        while let Some(argument) = parser.next().map_err(UsageError::new)? {
            let found = match &argument {
                lexopt::Arg::Long(name) => find(name),
                lexopt::Arg::Short(c) => {
                    let flag = FLAGS.iter().find(|flag| flag.short == Some(*c));
                    flag.map(|flag| (flag, true))
                }
                lexopt::Arg::Value(value) => {
                    let text = value.to_string_lossy().into_owned();
                    return Err(UsageError::new(format!("unexpected argument {text:?}")));
                }
            };
            let (flag, is_on) = found.ok_or_else(|| UsageError::new(argument.unexpected()))?;
            let text = match flag.value {
                Some(_) => parser.value().map_err(UsageError::new)?,
                None if is_on => parser.optional_value().unwrap_or("true".into()),
                None => "false".into(),
            };
            let source = format!("--{}", flag.name);
            given.add(flag, Value { source, text })?;
        }
        Ok(given)
    }

    /// Keeps a value. A switch takes what absl takes for true and false.
    fn add(&mut self, flag: &Flag, mut value: Value) -> Result<(), UsageError> {
        if flag.value.is_none() {
            let text = value.text.to_string_lossy().to_ascii_lowercase();
            value.text = match &*text {
                "true" | "t" | "1" => "true".into(),
                "false" | "f" | "0" => "false".into(),
                _ => return Err(value.problem("is neither true nor false")),
            };
        }
        self.0.entry(flag.name).or_default().push(value);
        Ok(())
    }

    /// Adds the variables of the flags that were not given. A key on the command line wins
    /// over a key file in the environment and the other way round.
    ///
    /// # Errors
    /// If a variable that takes several values is set and has none, or a switch is set to
    /// neither true nor false. An empty variable is as good as none.
    pub fn or_from_environment(
        mut self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Given, UsageError> {
        let has_key = self.has("key") || self.has("key-file");
        let has_scope = ["gateway", "organization", "user"].map(|name| self.has(name));
        let has_scope = has_scope.contains(&true);
        for flag in &FLAGS {
            let is_overruled = match flag.name {
                "key" | "key-file" => has_key,
                "gateway" | "organization" | "user" => has_scope,
                name => self.has(name),
            };
            let text = flag.variable.and_then(&variable);
            let Some(text) = text.filter(|text| !is_overruled && !text.is_empty()) else {
                continue;
            };
            let source = flag.variable.unwrap_or(flag.name).to_owned();
            let value = Value { source, text };
            match flag.name {
                "gateway" | "allow-host" | "exclude" => {
                    for value in value.split_at_commas()? {
                        self.add(flag, value)?;
                    }
                }
                _ => self.add(flag, value)?,
            }
        }
        Ok(self)
    }

    /// Whether the switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|value| value.text == "true")
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

    /// The last value of a flag as text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, UsageError> {
        self.last(name).map(Value::as_str).transpose()
    }

    /// The last value of a flag as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.last(name).map(|value| PathBuf::from(&value.text))
    }
}

impl Value {
    /// The value as text, which every value but a path has to be.
    pub fn as_str(&self) -> Result<&str, UsageError> {
        self.text
            .to_str()
            .ok_or_else(|| self.problem("is not UTF-8"))
    }

    /// The parts of a list; a list that names nothing would not limit what it should limit.
    fn split_at_commas(&self) -> Result<Vec<Value>, UsageError> {
        let parts = self.as_str()?.split(',').map(str::trim);
        let values: Vec<Value> = parts
            .filter(|part| !part.is_empty())
            .map(|part| Value {
                source: self.source.clone(),
                text: part.into(),
            })
            .collect();
        match values.is_empty() {
            true => Err(self.problem("is set but names nothing")),
            false => Ok(values),
        }
    }

    /// What is wrong with this value.
    pub fn problem(&self, problem: &str) -> UsageError {
        UsageError::new(format!("{} {:?}: {problem}", self.source, self.text))
    }
}

/// The flag of this name and whether a switch is turned on: absl has `--noverbose` too.
fn find(name: &str) -> Option<(&'static Flag, bool)> {
    let flag = |name| FLAGS.iter().find(|flag| flag.name == name);
    let negated = || flag(name.strip_prefix("no")?).filter(|flag| flag.value.is_none());
    flag(name)
        .map(|flag| (flag, true))
        .or_else(|| Some((negated()?, false)))
}

/// The Python script's absl took `-key=value` for `--key=value`: every argument with one dash
/// and the name of a flag gets its second dash, unless it is the value of the flag before.
fn with_double_dashes(
    arguments: impl IntoIterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    let mut is_value = false;
    arguments.into_iter().map(move |argument| {
        let name = match argument.to_str() {
            Some(text) if !is_value => text.strip_prefix('-').map(|rest| {
                let rest = rest.strip_prefix('-').unwrap_or(rest);
                rest.split_once('=')
                    .map_or((rest, false), |(name, _)| (name, true))
            }),
            _ => None,
        };
        let flag = name.and_then(|(name, _)| find(name)).map(|(flag, _)| flag);
        is_value = flag.is_some_and(|flag| flag.value.is_some()) && name.is_some_and(|n| !n.1);
        match argument.to_str() {
            Some(text) if flag.is_some() && !text.starts_with("--") => format!("-{text}").into(),
            _ => argument,
        }
    })
}

/// The default of a flag that has one.
pub fn default_of(name: &str) -> &'static str {
    let flag = FLAGS.iter().find(|flag| flag.name == name);
    flag.and_then(|flag| flag.default).unwrap_or_default()
}
