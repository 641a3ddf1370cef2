//! A store in PostgreSQL, for a fleet of agents.
//!
//! One connection each agent, made when it is wanted and made again when it was lost; calls on it are pipelined. Each statement is one
//! round trip and no prepared statement stays, so that a pooler may stand between. An agent needs SELECT, INSERT and UPDATE on
//! one table; [`Postgres::init`] makes it, or brings it up to date, under an advisory lock. TLS is brought by the roof.

mod secured;

use super::{Answer, Count, Entry, Failure, Put, Rewrap, Row, Store, StoreError, Tombstone};
use crate::dek::{Kid, Scope};
use crate::token::Record;
use rustls::ClientConfig;
use secured::Secured;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};

/// To the end of the log-in.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The schema's statements, version by version. What was released is never changed, only followed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE fieldveil_deks (
        kid     bytea  PRIMARY KEY CHECK (octet_length(kid) = 16),
        key     text,
        tenant  bytea,
        epoch   bigint CHECK (epoch >= 0),
        slot    bytea  UNIQUE,
        created bigint,
        record  bytea  CHECK (octet_length(record) <= 4096),
        mac     bytea  CHECK (octet_length(mac) = 16),
        deleted bigint,
        CHECK ((deleted IS NULL) = (record IS NOT NULL)),
        CHECK (deleted IS NOT NULL OR (key IS NOT NULL AND epoch IS NOT NULL AND created IS NOT NULL AND mac IS NOT NULL))
    );
    CREATE INDEX fieldveil_deks_latest ON fieldveil_deks (left(key, 128), coalesce(sha256(tenant), ''), epoch) WHERE slot IS NOT NULL;
    COMMENT ON TABLE fieldveil_deks IS 'fieldveil: wrapped data keys. What they sealed is lost without them: back this table up.';
"];

/// `fiel`, `veil`: the key of the advisory lock that migrations take.
const LOCK: i64 = 0x6669_656c_7665_696c;

const COLUMNS: &str = "kid, key, tenant, epoch, created, record, mac, deleted";

/// Where the database is, and how it is spoken to.
#[derive(Clone)]
pub struct Place {
    config: Config,
    secured: Option<Secured>,
}

/// A URL that is none, or that would send a password in clear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadUrl(pub &'static str);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadUrl {}

impl Place {
    /// `url`: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or libpq's words. With `tls`, every host must speak it and show a
    /// certificate of its name; without, it is not spoken.
    ///
    /// # Errors
    /// It is no such URL, names no host or no user, or says `sslmode` itself.
    pub fn new(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<Place, BadUrl> {
        // The parser's error repeats parts of the URL, which holds a password.
        let mut config =
            Config::from_str(url.trim()).map_err(|_| BadUrl("it is no URL of a PostgreSQL"))?;
        if url.contains("sslmode") || url.contains("sslnegotiation") {
            return Err(BadUrl(
                "`sslmode` is not for the URL: say `tls` in the settings",
            ));
        }
        if config.get_hosts().is_empty() {
            return Err(BadUrl("it names no host"));
        }
        if config.get_user().is_none() {
            return Err(BadUrl("it names no user"));
        }
        config.ssl_mode(match tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
        config
            .application_name("fieldveil")
            .connect_timeout(CONNECT_MAX)
            .keepalives_idle(Duration::from_secs(30));
        Ok(Place {
            config,
            secured: tls.map(Secured::new),
        })
    }

    /// Whether all hosts are on this machine: a Unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
                name == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        })
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let connected = async {
            match &self.secured {
                Some(secured) => {
                    let (client, connection) = self.config.connect(secured.clone()).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        };
        match tokio::time::timeout(CONNECT_MAX, connected).await {
            Ok(connected) => connected.map_err(|error| told(&error)),
            Err(_) => Err(StoreError::new(
                Failure::Unreachable,
                "no connection in time",
            )),
        }
    }
}

/// See the module. Connects at the first call.
pub struct Postgres {
    place: Place,
    client: Mutex<Option<Arc<Client>>>,
}

impl Postgres {
    /// Of what is at this place; nothing is connected yet.
    pub fn new(place: Place) -> Postgres {
        Postgres {
            place,
            client: Mutex::new(None),
        }
    }

    /// Makes the table, or brings it up to date; true: something was changed. Those who do it at once wait for each other.
    ///
    /// # Errors
    /// The database cannot be reached, refuses, or has a later version than this program knows.
    pub async fn init(place: &Place) -> Result<bool, StoreError> {
        let mut client = place.connect().await?;
        let work = async {
            let change = client.transaction().await?;
            change
                .execute_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])
                .await?;
            change
                .batch_execute(
                    "CREATE TABLE IF NOT EXISTS fieldveil_schema (version int PRIMARY KEY)",
                )
                .await?;
            let known = change
                .query_typed_one(
                    "SELECT coalesce(max(version), 0) FROM fieldveil_schema",
                    &[],
                )
                .await?;
            let known: i32 = known.try_get(0)?;
            let done = usize::try_from(known).unwrap_or(0);
            if done > MIGRATIONS.len() {
                return Ok(None);
            }
            for (number, statements) in (1i32..).zip(MIGRATIONS).skip(done) {
                change.batch_execute(statements).await?;
                let sql = "INSERT INTO fieldveil_schema VALUES ($1)";
                change.execute_typed(sql, &[(&number, Type::INT4)]).await?;
            }
            change.commit().await?;
            Ok(Some(done < MIGRATIONS.len()))
        };
        match work.await {
            Ok(Some(changed)) => Ok(changed),
            Ok(None) => Err(StoreError::new(
                Failure::Refused,
                "the database was set up by a later version of this program",
            )),
            Err(error) => Err(told(&error)),
        }
    }

    /// The connection; another one where there is none, or none any more.
    async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut known = self.client.lock().await;
        match &*known {
            Some(client) if !client.is_closed() => Ok(Arc::clone(client)),
            _ => {
                let client = Arc::new(self.place.connect().await?);
                *known = Some(Arc::clone(&client));
                Ok(client)
            }
        }
    }

    async fn query(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let client = self.client().await?;
        let mut call = Call {
            store: self,
            client: &client,
            answered: false,
        };
        let answer = call.client.query_typed(sql, params).await;
        call.answered = true;
        answer.map_err(|error| told(&error))
    }

    async fn entries(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Entry>, StoreError> {
        let rows = self.query(sql, params).await?;
        rows.iter().map(entry).collect()
    }
}

/// A call that is given up leaves a connection that may be dead without anyone telling: the next call makes another.
struct Call<'a> {
    store: &'a Postgres,
    client: &'a Arc<Client>,
    answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered
            && let Ok(mut known) = self.store.client.try_lock()
            && known
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, self.client))
        {
            *known = None;
        }
    }
}

/// What an error obliges to. Of the server's messages only the code is repeated: some of them hold values.
fn told(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        return StoreError::new(Failure::Unreachable, error.to_string());
    };
    let said = |failure, what: &str| StoreError::new(failure, format!("{what} ({})", code.code()));
    match code {
        &SqlState::UNDEFINED_TABLE => said(
            Failure::Refused,
            "the database is not set up: run `fieldveil store init`",
        ),
        &SqlState::INSUFFICIENT_PRIVILEGE => said(
            Failure::Refused,
            "the user lacks SELECT, INSERT or UPDATE on fieldveil_deks",
        ),
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            said(Failure::Refused, "the database refuses the user")
        }
        &SqlState::INVALID_CATALOG_NAME => said(Failure::Refused, "there is no such database"),
        _ => said(Failure::Unreachable, "the database answered with an error"),
    }
}

fn entry(row: &tokio_postgres::Row) -> Result<Entry, StoreError> {
    let bad = |what: &str| StoreError::new(Failure::Malformed, format!("a row's {what}"));
    let kid: Vec<u8> = row.try_get(0).map_err(|_| bad("kid"))?;
    let kid = Kid(kid.try_into().map_err(|_| bad("kid"))?);
    let key: Option<String> = row.try_get(1).map_err(|_| bad("key"))?;
    let tenant: Option<Vec<u8>> = row.try_get(2).map_err(|_| bad("tenant"))?;
    let tenant = tenant.map(String::from_utf8).transpose();
    let tenant = tenant.map_err(|_| bad("tenant"))?;
    let epoch: Option<i64> = row.try_get(3).map_err(|_| bad("epoch"))?;
    let created: Option<i64> = row.try_get(4).map_err(|_| bad("created"))?;
    let record: Option<Vec<u8>> = row.try_get(5).map_err(|_| bad("record"))?;
    let mac: Option<Vec<u8>> = row.try_get(6).map_err(|_| bad("mac"))?;
    let deleted: Option<i64> = row.try_get(7).map_err(|_| bad("deleted"))?;
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let scope = key.map(|key| Scope {
        key: key.into(),
        tenant: tenant.map(Into::into),
    });
    if let Some(deleted) = deleted {
        return Ok(Entry::Tombstone(Tombstone {
            kid,
            deleted: number(deleted),
            was: scope.zip(epoch.map(number)),
        }));
    }
    let record = record.filter(|record| Record::parse(record).is_ok());
    Ok(Entry::Row(Row {
        kid,
        scope: scope.ok_or_else(|| bad("key"))?,
        epoch: number(epoch.ok_or_else(|| bad("epoch"))?),
        created: number(created.ok_or_else(|| bad("created"))?),
        record: record.ok_or_else(|| bad("record"))?.into(),
        mac: mac
            .and_then(|mac| mac.try_into().ok())
            .ok_or_else(|| bad("mac"))?,
    }))
}

/// SHA-256 over key name, tenant and epoch, each with its length: what only one deterministic DEK may have.
fn slot((scope, epoch): (&Scope, u64)) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [Some(&scope.key), scope.tenant.as_ref()] {
        match part {
            Some(text) => {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
            None => hash.update(u64::MAX.to_be_bytes()),
        }
    }
    hash.update(epoch.to_be_bytes());
    hash.finalize().to_vec()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Postgres {
    async fn put(&self, row: &Row) -> Result<Put, StoreError> {
        let entry = Entry::Row(row.clone());
        let slot = entry.slot().map(slot);
        let tenant = row.scope.tenant.as_deref().map(str::as_bytes);
        let (kid, record, mac) = (&row.kid.0[..], &*row.record, &row.mac[..]);
        let (epoch, created, key) = (signed(row.epoch), signed(row.created), &*row.scope.key);
        let insert = "INSERT INTO fieldveil_deks (kid, key, tenant, epoch, slot, created, record, mac) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING 1";
        let params: [(&(dyn ToSql + Sync), Type); 8] = [
            (&kid, Type::BYTEA),
            (&key, Type::TEXT),
            (&tenant, Type::BYTEA),
            (&epoch, Type::INT8),
            (&slot, Type::BYTEA),
            (&created, Type::INT8),
            (&record, Type::BYTEA),
            (&mac, Type::BYTEA),
        ];
        if !self.query(insert, &params).await?.is_empty() {
            return Ok(Put::Made);
        }
        let select = format!(
            "SELECT {COLUMNS} FROM fieldveil_deks WHERE kid = $1 OR slot = $2 ORDER BY kid = $1 DESC LIMIT 1"
        );
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&kid, Type::BYTEA), (&slot, Type::BYTEA)];
        let known = self.entries(&select, &params);
        let gone = || StoreError::new(Failure::Unreachable, "a row came and went");
        let known = known.await?.pop().ok_or_else(gone)?;
        Ok(Put::Present(known))
    }

    async fn bury(&self, tombstone: &Tombstone) -> Result<bool, StoreError> {
        let (kid, deleted) = (&tombstone.kid.0[..], signed(tombstone.deleted));
        let was = tombstone.was.as_ref();
        let key = was.map(|(scope, _)| &*scope.key);
        let tenant = was.and_then(|(scope, _)| scope.tenant.as_deref().map(str::as_bytes));
        let epoch = was.map(|(_, epoch)| signed(*epoch));
        let slot = Entry::Tombstone(tombstone.clone()).slot().map(slot);
        // The row's own words stay; the tombstone's are for a kid that has none.
        let sql = "INSERT INTO fieldveil_deks AS known (kid, key, tenant, epoch, slot, deleted) \
             VALUES ($1, $2, $3, $4, CASE WHEN EXISTS \
             (SELECT 1 FROM fieldveil_deks WHERE slot = $5 AND kid <> $1) THEN NULL ELSE $5 END, $6) \
             ON CONFLICT (kid) DO UPDATE SET record = NULL, mac = NULL, deleted = $6 \
             WHERE known.deleted IS NULL RETURNING 1";
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&kid, Type::BYTEA),
            (&key, Type::TEXT),
            (&tenant, Type::BYTEA),
            (&epoch, Type::INT8),
            (&slot, Type::BYTEA),
            (&deleted, Type::INT8),
        ];
        Ok(!self.query(sql, &params).await?.is_empty())
    }
}

impl Store for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    fn put_if_absent<'a>(&'a self, row: &'a Row) -> Answer<'a, Put> {
        Box::pin(self.put(row))
    }

    fn get(&self, kid: Kid) -> Answer<'_, Option<Entry>> {
        Box::pin(async move {
            let sql = format!("SELECT {COLUMNS} FROM fieldveil_deks WHERE kid = $1");
            let kid = &kid.0[..];
            Ok(self.entries(&sql, &[(&kid, Type::BYTEA)]).await?.pop())
        })
    }

    fn latest<'a>(&'a self, scope: &'a Scope) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            let sql = format!(
                "SELECT {COLUMNS} FROM fieldveil_deks WHERE slot IS NOT NULL \
                 AND left(key, 128) = left($1, 128) AND coalesce(sha256(tenant), '') = coalesce(sha256($2), '') \
                 AND key = $1 AND tenant IS NOT DISTINCT FROM $2 ORDER BY epoch DESC LIMIT 1"
            );
            let key = &*scope.key;
            let tenant = scope.tenant.as_deref().map(str::as_bytes);
            let params: [(&(dyn ToSql + Sync), Type); 2] =
                [(&key, Type::TEXT), (&tenant, Type::BYTEA)];
            Ok(self.entries(&sql, &params).await?.pop())
        })
    }

    fn list(&self, after: Option<Kid>, limit: usize) -> Answer<'_, Vec<Entry>> {
        Box::pin(async move {
            let sql = format!(
                "SELECT {COLUMNS} FROM fieldveil_deks WHERE $1::bytea IS NULL OR kid > $1 ORDER BY kid LIMIT $2"
            );
            let after = after.as_ref().map(|kid| &kid.0[..]);
            let limit = signed(limit as u64);
            self.entries(&sql, &[(&after, Type::BYTEA), (&limit, Type::INT8)])
                .await
        })
    }

    fn rewrap<'a>(&'a self, changes: &'a [Rewrap]) -> Answer<'a, u64> {
        Box::pin(async move {
            let kids: Vec<&[u8]> = changes.iter().map(|change| &change.kid.0[..]).collect();
            let from: Vec<&[u8]> = changes.iter().map(|change| &*change.from).collect();
            let to: Vec<&[u8]> = changes.iter().map(|change| &*change.to).collect();
            let sql = "UPDATE fieldveil_deks AS known SET record = change.to_record \
                 FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS change (kid, from_record, to_record) \
                 WHERE known.kid = change.kid AND known.record = change.from_record RETURNING 1";
            let params: [(&(dyn ToSql + Sync), Type); 3] = [
                (&kids, Type::BYTEA_ARRAY),
                (&from, Type::BYTEA_ARRAY),
                (&to, Type::BYTEA_ARRAY),
            ];
            Ok(self.query(sql, &params).await?.len() as u64)
        })
    }

    fn delete<'a>(&'a self, tombstone: &'a Tombstone) -> Answer<'a, bool> {
        Box::pin(self.bury(tombstone))
    }

    fn restore<'a>(&'a self, entries: &'a [Entry]) -> Answer<'a, u64> {
        Box::pin(async move {
            let mut made = 0;
            for entry in entries {
                made += u64::from(match entry {
                    Entry::Row(row) => self.put(row).await? == Put::Made,
                    Entry::Tombstone(tombstone) => self.bury(tombstone).await?,
                });
            }
            Ok(made)
        })
    }

    fn count(&self) -> Answer<'_, Count> {
        Box::pin(async move {
            let sql = "SELECT count(*) FILTER (WHERE deleted IS NULL), \
                 count(*) FILTER (WHERE deleted IS NULL AND slot IS NOT NULL), \
                 count(*) FILTER (WHERE deleted IS NOT NULL) FROM fieldveil_deks";
            let rows = self.query(sql, &[]).await?;
            let number = |at: usize| {
                let found = rows.first().and_then(|row| row.try_get::<_, i64>(at).ok());
                found.map_or(0, |number| number.unsigned_abs())
            };
            Ok(Count {
                rows: number(0),
                durable: number(1),
                tombstones: number(2),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_not_repeated() {
        for url in [
            "postgresql://u:hunter2@[::1",
            "postgres://u:hunter2@h:notaport/d",
            "mysql://u:hunter2@h/d",
            "",
            "postgresql://h/d",
            "postgresql://u:hunter2@/d",
            "postgresql://u:hunter2@h/d?sslmode=disable",
        ] {
            let error = Place::new(url, None).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[track_caller]
    fn check_local(url: &str, local: bool) {
        assert_eq!(Place::new(url, None).unwrap().is_local(), local, "{url}");
    }

    #[test]
    fn only_this_machine_is_local() {
        check_local("postgresql://u@localhost/d", true);
        check_local("postgresql://u@127.0.0.1:5433/d", true);
        check_local("postgresql://u@[::1]/d", true);
        check_local("host=/run/postgresql user=u", true);
        check_local("postgresql://u@db.example/d", false);
        check_local("postgresql://u@127.0.0.1,10.0.0.5/d", false);
    }
}
