//! How containerd calls the shim: `containerd-shim-assay-v1 -namespace NS -address SOCK -id ID [-bundle DIR] [-debug]
//! start|delete`, and for people `-v` and `-info`.

use std::env;

/// What this process is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the shim of a pod, or find the one that runs, and print its address.
    Start,
    /// Remove what a dead shim's container left.
    Delete,
    /// Describe the runtime.
    Info,
    /// Print the version.
    Version,
    /// Be the resident shim; standard input is the listening socket. Only the shim itself calls this.
    Serve,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// containerd namespace.
    pub namespace: String,
    /// Container id, or id of the pod's sandbox for the resident shim.
    pub id: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// Bundle, given only with `delete`.
    pub bundle: String,
    /// Log more.
    pub debug: bool,
}

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// Not one of the flags.
    #[error("{0}; containerd starts this program, run 'assay' instead")]
    Flags(#[from] go_flag::FlagError),
    /// A flag that the action needs is missing.
    #[error("-{0} is missing; containerd starts this program, run 'assay' instead")]
    Missing(&'static str),
    /// An action that does not exist.
    #[error("unknown action '{0}': expected start or delete")]
    Action(String),
    /// Something that would leave the state directories when used as a file name.
    #[error("-{flag} '{value}' is not an identifier")]
    Identifier {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
}

impl Invocation {
    /// Reads this process's arguments.
    ///
    /// # Errors
    /// On unknown flags, unknown actions, missing flags, and ids that are no identifiers.
    pub fn from_env() -> Result<Self, InvocationError> {
        Self::parse(&env::args().skip(1).collect::<Vec<_>>())
    }

    fn parse(arguments: &[String]) -> Result<Self, InvocationError> {
        let mut this = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: String::new(),
            debug: false,
        };
        let (mut v, mut version, mut info, mut publish) = (false, false, false, String::new());
        let rest: Vec<String> = go_flag::parse_args(arguments, |flags| {
            flags.add_flag("namespace", &mut this.namespace);
            flags.add_flag("id", &mut this.id);
            flags.add_flag("address", &mut this.address);
            flags.add_flag("bundle", &mut this.bundle);
            flags.add_flag("debug", &mut this.debug);
            flags.add_flag("v", &mut v);
            flags.add_flag("version", &mut version);
            flags.add_flag("info", &mut info);
            // Always passed and never needed: events go over ttrpc.
            flags.add_flag("publish-binary", &mut publish);
        })?;
        this.action = match rest.first().map(String::as_str) {
            _ if v || version => Action::Version,
            _ if info => Action::Info,
            None => Action::Serve,
            Some("start") => Action::Start,
            Some("delete") => Action::Delete,
            Some(other) => return Err(InvocationError::Action(other.to_owned())),
        };
        if !matches!(this.action, Action::Version | Action::Info) {
            identifier("namespace", &this.namespace)?;
            identifier("id", &this.id)?;
        }
        Ok(this)
    }
}

fn identifier(flag: &'static str, value: &str) -> Result<(), InvocationError> {
    match value {
        "" => Err(InvocationError::Missing(flag)),
        value if is_identifier(value) => Ok(()),
        value => Err(InvocationError::Identifier {
            flag,
            value: value.chars().take(80).collect(),
        }),
    }
}

/// Whether `text` is safe as one component of a path: containerd's identifiers are, anything else is not ours.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, InvocationError> {
        Invocation::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn containerds_own_lines_parse() {
        let start =
            parse("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc -debug start");
        let start = start.unwrap();
        assert_eq!(
            (start.action, start.id.as_str(), start.debug),
            (Action::Start, "abc", true)
        );
        let delete = parse("-namespace k8s.io -address a -publish-binary b -id abc -bundle /b delete").unwrap();
        assert_eq!((delete.action, delete.bundle.as_str()), (Action::Delete, "/b"));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn mistakes_are_named() {
        insta::assert_snapshot!(parse("start").unwrap_err(), @"-namespace is missing; containerd starts this program, run 'assay' instead");
        insta::assert_snapshot!(parse("-namespace a -id ../x start").unwrap_err(), @"-id '../x' is not an identifier");
        insta::assert_snapshot!(parse("-namespace a -id b stop").unwrap_err(), @"unknown action 'stop': expected start or delete");
        assert!(parse("-nonsense").is_err());
    }
}
