//! From files and directories to policies and the tests beside them. Files are read whole and bounded; nothing is watched.

use crate::diagnostic::{Diagnostic, Source, Span};
use crate::marked::TEXT_BYTES_MAX;
use crate::policy::{self, Policies, Policy};
use crate::rehearsal::script::SUFFIX;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What [`Texts`] are known by.
pub type Fingerprint = [u8; 32];

/// Directories within directories are searched to this depth.
const WALK_DEPTH_MAX: usize = 16;

/// Loads the policies of files and directories.
///
/// # Errors
/// Everything that is wrong with any of them; a path that cannot be read, or that holds no policy, is a finding, too.
pub fn load(paths: &[PathBuf], environment: Option<&str>) -> Result<Policies, Vec<Diagnostic>> {
    Texts::read(paths).policies(environment)
}

/// The files of policies as they were at one moment.
#[derive(Clone)]
pub struct Texts {
    /// In the order in which routes are tried.
    files: Vec<(PathBuf, Result<String, Vec<Diagnostic>>)>,
    /// What was wrong before a file was come to.
    found: Vec<Diagnostic>,
}

impl Texts {
    /// Reads files, and the policies below directories.
    pub fn read(paths: &[PathBuf]) -> Texts {
        let mut found = Vec::new();
        let mut files: Vec<PathBuf> = Vec::new();
        for path in paths {
            let before = files.len();
            if let Err(diagnostics) = walk(path, 0, &is_policy, &mut files) {
                found.extend(diagnostics);
            } else if files.len() == before {
                found.push(about(path, "no-policies", "there is no *.yaml file here"));
            }
        }
        let mut seen = Vec::new();
        files.retain(|file| {
            let real = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
            let new = !seen.contains(&real);
            seen.push(real);
            new
        });
        let files = files.into_iter().map(|file| {
            let text = text(&file);
            (file, text)
        });
        Texts {
            files: files.collect(),
            found,
        }
    }

    /// Differs where the texts, their names, or what is wrong with them do.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        for (file, text) in &self.files {
            add(&file.to_string_lossy());
            match text {
                Ok(text) => add(text),
                Err(found) => found.iter().for_each(|one| add(&one.to_string())),
            }
        }
        self.found.iter().for_each(|one| add(&one.to_string()));
        digest.finalize().into()
    }

    /// The version of the policies that these are, if they are any ([`policy::version`]).
    pub fn version(&self) -> Arc<str> {
        let texts = self.files.iter().map(|(_, text)| text.as_deref());
        policy::version(texts.map(|text| text.unwrap_or_default()))
    }

    /// Whether all of them could be read.
    pub fn are_whole(&self) -> bool {
        self.found.is_empty() && self.files.iter().all(|(_, text)| text.is_ok())
    }

    /// Checks them, and all of them together.
    ///
    /// # Errors
    /// As those of [`load`].
    pub fn policies(self, environment: Option<&str>) -> Result<Policies, Vec<Diagnostic>> {
        let mut found = self.found;
        let mut policies = Vec::new();
        for (file, text) in self.files {
            match text
                .and_then(|text| Policy::load(&text, &file.display().to_string(), environment))
            {
                Ok(policy) => policies.push(policy),
                Err(diagnostics) => found.extend(diagnostics),
            }
        }
        match Policies::new(policies) {
            Ok(policies) if found.is_empty() => Ok(policies),
            Ok(_) => Err(found),
            Err(diagnostics) => {
                found.extend(diagnostics);
                Err(found)
            }
        }
    }
}

/// A finding about a file as a whole.
pub(crate) fn about(path: &Path, code: &'static str, message: impl Into<String>) -> Diagnostic {
    Source::new(&path.display().to_string(), "")
        .diagnostic(code, Span::default(), message)
        .without_line()
}

/// The files of a directory that are policies: `*.yaml`, without the tests beside them.
/// Policies are all `*.yaml` but tests.
fn is_policy(name: &str) -> bool {
    name.ends_with(".yaml") && !name.ends_with(SUFFIX)
}

/// A file as it is; of a directory all that are `wanted` by their names, sorted. Hidden entries are left out: a mounted
/// ConfigMap keeps its versions in them.
pub(crate) fn walk(
    path: &Path,
    depth: usize,
    wanted: &dyn Fn(&str) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), Vec<Diagnostic>> {
    let unreadable = |error: io::Error| {
        vec![about(
            path,
            "unreadable",
            format!("cannot be read: {error}"),
        )]
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth > WALK_DEPTH_MAX {
        return Err(vec![about(
            path,
            "too-deep",
            format!("directories nest deeper than {WALK_DEPTH_MAX}"),
        )]);
    }
    let entries = fs::read_dir(path).map_err(unreadable)?;
    let mut entries = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        if !name.starts_with('.') && (wanted(&name) || entry.is_dir()) {
            walk(&entry, depth + 1, wanted, files)?;
        }
    }
    Ok(())
}

/// The whole text of a policy or a test file.
pub(crate) fn text(file: &Path) -> Result<String, Vec<Diagnostic>> {
    let found = |code, what: String| vec![about(file, code, what)];
    let bytes = read(file, TEXT_BYTES_MAX)
        .map_err(|what| found("unreadable", format!("cannot be read: {what}")))?;
    if bytes.len() > TEXT_BYTES_MAX {
        let message = format!("at most {TEXT_BYTES_MAX} bytes are read");
        return Err(found("too-large", message));
    }
    String::from_utf8(bytes)
        .map_err(|_| found("unreadable", "cannot be read: it is not UTF-8".to_owned()))
}

/// The bytes of a file, and perhaps one more than `max`: enough to see that it is too long.
pub(crate) fn read(file: &Path, max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}
