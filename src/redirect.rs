//! Rules that lead an application's connections to a transparent listener, for nftables: a table of our own, put up and taken down whole.
//!
//! They stand in the network namespace that they are put up in, for what its own processes send, and for what comes to be routed from the
//! interfaces that are named. The agent's user, or what bears its mark, is exempt, or its own connections would come back to it. Nobody listening, a redirected connection is refused: nothing gets out past the agent. It never
//! touches another table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::str::FromStr;

/// The table's name, in the family `inet`.
pub const TABLE: &str = "fieldveil";
/// What puts the rules in force.
const NFT: &str = "nft";

/// Which connections are redirected, and whose are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The agent's own connections.
    pub exempt: Exempt,
    /// TCP ports that connections are redirected from. Not empty.
    pub ports: BTreeSet<u16>,
    /// The transparent listeners' port: on `127.0.0.1`, and on `[::1]` for IPv6; for what comes by `interfaces`, on the addresses of those.
    pub to: u16,
    /// By which other machines' or namespaces' connections come, on their way through this one.
    pub interfaces: BTreeSet<Interface>,
}

/// By what the agent's own connections are known. Both: by either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exempt {
    /// The user that the agent runs as.
    pub uid: Option<u32>,
    /// The mark of its sockets (SO_MARK).
    pub mark: Option<u32>,
}

/// A network interface's name, which means nothing in a script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(String);

impl FromStr for Interface {
    type Err = &'static str;

    /// 1 to 15 letters, digits and `._-@`, as Linux has it less what nobody uses.
    fn from_str(name: &str) -> Result<Interface, &'static str> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        match (1..16).contains(&name.len()) && name.bytes().all(known) {
            true => Ok(Interface(name.to_owned())),
            false => Err("an interface's name is 1 to 15 letters, digits and `._-@`"),
        }
    }
}

impl Rules {
    /// The script that puts these in the place of whatever stands in the table.
    pub fn script(&self) -> String {
        let Rules { exempt, to, .. } = self;
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let mut own = String::new();
        if let Some(uid) = exempt.uid {
            let _ = writeln!(own, "\t\tmeta skuid {uid} return");
        }
        if let Some(mark) = exempt.mark {
            let _ = writeln!(own, "\t\tmeta mark {mark} return");
        }
        let mut script = down();
        // What is redirected goes out over `lo` from there on; so does what was meant for this machine itself.
        let _ = write!(
            script,
            "table inet {TABLE} {{
\tchain connections {{
\t\ttype nat hook output priority -100; policy accept;
{own}\t\toifname \"lo\" return
\t\tfib daddr type local return
\t\ttcp dport {{ {ports} }} redirect to :{to}
\t}}
\tchain datagrams {{
\t\ttype filter hook output priority 0; policy accept;
{own}\t\toifname \"lo\" return
\t\tudp dport {{ {ports} }} reject with icmpx type port-unreachable
\t}}
"
        );
        let interfaces: Vec<String> = self
            .interfaces
            .iter()
            .map(|one| format!("\"{}\"", one.0))
            .collect();
        if !interfaces.is_empty() {
            let interfaces = interfaces.join(", ");
            let _ = write!(
                script,
                "\tchain routed {{
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tiifname != {{ {interfaces} }} return
\t\tfib daddr type local return
\t\ttcp dport {{ {ports} }} redirect to :{to}
\t}}
\tchain routed_datagrams {{
\t\ttype filter hook forward priority 0; policy accept;
\t\tiifname {{ {interfaces} }} udp dport {{ {ports} }} reject with icmpx type port-unreachable
\t}}
"
            );
        }
        script.push_str("}\n");
        script
    }

    /// Puts them in force, at once and whole.
    ///
    /// # Errors
    /// There is no nft, or it says no: what it says.
    pub fn up(&self) -> Result<(), String> {
        nft(&self.script())
    }
}

/// The script that takes the table away, whether or not it is there.
pub fn down() -> String {
    // Adding what is there changes nothing, and deleting what is not would be an error.
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// Takes the rules away.
///
/// # Errors
/// As [`Rules::up`].
pub fn take_down() -> Result<(), String> {
    nft(&down())
}

/// Has nft carry out a script, all of it or nothing.
fn nft(script: &str) -> Result<(), String> {
    let mut command = Command::new(NFT);
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no `nft` here (Debian: apt install nftables)".to_owned()
        }
        _ => format!("nft: {error}"),
    };
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // One that reads no further says why below.
        let _ = input.write_all(script.as_bytes());
    }
    let ended = child.wait_with_output().map_err(failed)?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!(
            "nft: {}",
            String::from_utf8_lossy(&ended.stderr).trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_exempts_the_agent_first_and_replaces_the_table() {
        let uid = Exempt {
            uid: Some(990),
            mark: None,
        };
        let mut rules = Rules {
            exempt: uid,
            ports: [443, 80].into(),
            to: 15001,
            interfaces: BTreeSet::new(),
        };
        let expected = "table inet fieldveil
delete table inet fieldveil
table inet fieldveil {
\tchain connections {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid 990 return
\t\toifname \"lo\" return
\t\tfib daddr type local return
\t\ttcp dport { 80, 443 } redirect to :15001
\t}
\tchain datagrams {
\t\ttype filter hook output priority 0; policy accept;
\t\tmeta skuid 990 return
\t\toifname \"lo\" return
\t\tudp dport { 80, 443 } reject with icmpx type port-unreachable
\t}
}
";
        assert_eq!(rules.script(), expected);
        assert!(rules.script().starts_with(&down()));
        rules.exempt.mark = Some(64206);
        let both = "\t\tmeta skuid 990 return\n\t\tmeta mark 64206 return\n";
        let own = "\t\tmeta skuid 990 return\n";
        assert_eq!(rules.script(), expected.replace(own, both));
        rules.exempt.uid = None;
        let mark = "\t\tmeta mark 64206 return\n";
        assert_eq!(rules.script(), expected.replace(own, mark));
    }

    #[test]
    fn what_comes_to_be_routed_is_redirected_from_the_named_interfaces_alone() {
        let named = ["eth1", "br-0"].map(|name| name.parse().expect("a name"));
        let rules = Rules {
            exempt: Exempt {
                uid: Some(990),
                mark: None,
            },
            ports: [443].into(),
            to: 15001,
            interfaces: named.into(),
        };
        let script = rules.script();
        let expected = "\tchain routed {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tiifname != { \"br-0\", \"eth1\" } return
\t\tfib daddr type local return
\t\ttcp dport { 443 } redirect to :15001
\t}
";
        assert!(script.contains(expected), "{script}");
        for name in ["", "a b", "a\"", "{", "sixteen-letters-", "a\nb"] {
            assert!(name.parse::<Interface>().is_err(), "{name}");
        }
    }
}
