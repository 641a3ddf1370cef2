//! Rules that lead an application's connections to a transparent listener, for nftables: a table of our own, put up and taken down whole.
//!
//! They stand in the network namespace that they are put up in, for what its own processes send. The agent's user is exempt, or its own
//! connections would come back to it. Nobody listening, a redirected connection is refused: nothing gets out past the agent. It never
//! touches another table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// The table's name, in the family `inet`.
pub const TABLE: &str = "fieldveil";
/// What puts the rules in force.
const NFT: &str = "nft";

/// Which connections are redirected, and whose are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The user that the agent runs as.
    pub exempt: u32,
    /// TCP ports that connections are redirected from. Not empty.
    pub ports: BTreeSet<u16>,
    /// The transparent listeners' port: on `127.0.0.1`, and on `[::1]` for IPv6.
    pub to: u16,
}

impl Rules {
    /// The script that puts these in the place of whatever stands in the table.
    pub fn script(&self) -> String {
        let Rules { exempt, ports, to } = self;
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let mut script = down();
        // What is redirected goes out over `lo` from there on; so does what was meant for this machine itself.
        let _ = write!(
            script,
            "table inet {TABLE} {{
\tchain connections {{
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid {exempt} return
\t\toifname \"lo\" return
\t\tfib daddr type local return
\t\ttcp dport {{ {ports} }} redirect to :{to}
\t}}
\tchain datagrams {{
\t\ttype filter hook output priority 0; policy accept;
\t\tmeta skuid {exempt} return
\t\toifname \"lo\" return
\t\tudp dport {{ {ports} }} reject with icmpx type port-unreachable
\t}}
}}
"
        );
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
        let rules = Rules {
            exempt: 990,
            ports: [443, 80].into(),
            to: 15001,
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
    }
}
