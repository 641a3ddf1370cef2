//! What can be typed after `fieldveil seal` and `fieldveil open`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `fieldveil seal`.
#[derive(Args, Debug)]
#[command(after_help = "\
Input is one JSON document, or lines with one each; the first line that is not blank decides: if it is a document by
itself, every line is one. --ndjson says so beforehand. Outside of the sealed values not a byte changes.

Exit codes: 0 done, 1 records were skipped, 65 a record was refused, 69 no keys, 78 policy, settings or flags do not
fit, 141 whoever read the output stopped.

Examples:
  fieldveil seal --policy policies/ --route customers --data-dir ./data < customer.json
  fieldveil seal --policy payments.yaml --route customers --config settings.yaml --tenant acme \\
    --bind customer='$.id' --on-error skip --rejects rejects.tsv < customers.ndjson > sealed.ndjson")]
pub struct SealArgs {
    /// What `seal` and `open` share.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which rules of the route [default: request]
    #[arg(long, value_enum)]
    pub side: Option<FilterSide>,
    /// What becomes of a record that cannot be sealed; it is never written as it is
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub on_error: OnSealError,
}

/// `fieldveil open`.
#[derive(Args, Debug)]
#[command(after_help = "\
Input is read as `fieldveil seal` reads it. A token at an opening place that stays sealed is an error of its record.

Exit codes: 0 done, 1 records were skipped or left, 65 a record was refused, 69 no keys, 78 policy, settings or flags do
not fit, 141 whoever read the output stopped.

Examples:
  fieldveil open --policy policies/ --route customers --data-dir ./data < sealed.json
  fieldveil open --policy payments.yaml --route customers --config settings.yaml --tenant acme \\
    --bind customer='$.id' --on-error leave < sealed.ndjson | jq .email
  fieldveil open --policy payments.yaml --route customers --config settings.yaml --caller billing < sealed.ndjson")]
pub struct OpenArgs {
    /// What `seal` and `open` share.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which rules of the route [default: response]
    #[arg(long, value_enum)]
    pub side: Option<FilterSide>,
    /// Who asks, as rules with `reveal` name callers [default: nobody that they name]
    #[arg(long, value_name = "NAME")]
    pub caller: Option<String>,
    /// What becomes of a record of which something stays sealed, or that cannot be read
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub on_error: OnOpenError,
}

/// What `seal` and `open` share.
#[derive(Args, Debug)]
pub struct FilterArgs {
    /// A policy, or a directory of policies, instead of the settings'
    #[arg(long, value_name = "PATH", env = "FIELDVEIL_POLICIES")]
    pub policy: Option<PathBuf>,
    /// The route whose rules are used; needed unless only one has fitting rules
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// The settings file: where the keys are
    #[arg(long, value_name = "FILE", env = "FIELDVEIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where an embedded key store is kept; `seal` initialises an empty directory, `open` makes nothing
    #[arg(long, value_name = "DIR", env = "FIELDVEIL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Applies this environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// The tenant of all records, where the policy declares one
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// A header that a request would have, for tenant and binds; repeatable
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// The query that a request would have, without `?`
    #[arg(long, value_name = "QUERY")]
    pub query: Option<String>,
    /// The path that a request would have
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Takes a bind's value, or `tenant`, from each record, where a request would tell it from outside; repeatable
    #[arg(long, value_name = "NAME=JSONPATH", value_parser = bind)]
    pub bind: Vec<(String, String)>,
    /// Every line is a document; otherwise the first line decides
    #[arg(long)]
    pub ndjson: bool,
    /// With --on-error skip: where the lines that are left out are noted, one `LINE<TAB>CODE` each; a new file
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Neither progress nor a summary on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `--side` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FilterSide {
    /// Those for requests
    Request,
    /// Those for responses
    Response,
}

/// What `seal --on-error` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnSealError {
    /// Nothing is written from it on
    #[default]
    Stop,
    /// It is left out and noted in --rejects
    Skip,
}

/// What `open --on-error` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnOpenError {
    /// Nothing is written from it on
    #[default]
    Stop,
    /// It is left out and noted in --rejects
    Skip,
    /// It is written, with what could not be opened as it was
    Leave,
}

fn pair(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(name, _)| !name.is_empty())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text).ok_or("a name, `=` and a value, as in X-Tenant=acme")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn bind(text: &str) -> Result<(String, String), String> {
    let (name, path) = pair(text).ok_or("a bind's name, `=` and a JSONPath, as in record=$.id")?;
    Ok((name.to_owned(), path.to_owned()))
}
