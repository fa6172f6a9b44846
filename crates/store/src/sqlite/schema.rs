//! The schema and how an older or newer file is met.
//!
//! Migrations are embedded, run at every start inside one exclusive transaction, and only ever add (expand/contract), so that the
//! previous release can go on writing after a rollback. A file from a newer release is shared as long as it says that a release
//! that knows our migrations may (`store_state.compatible_from`) and everything we know was applied to it unchanged.

use std::path::Path;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, SqlSafeStr as _, SqliteConnection};

use super::fault::store_error;
use crate::StoreError;

const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "matches",
    include_str!("../../migrations/sqlite/0001_matches.sql"),
)];

/// The newest migration this release knows.
const NEWEST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

fn migrator() -> Migrator {
    let all = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            let sql = sql.into_sql_str();
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(all);
    // Those of a newer release; whether they may be there is checked before.
    migrator.set_ignore_missing(true);
    migrator
}

/// Brings the schema up to date, or says why not and changes nothing.
pub(super) async fn prepare(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let fail = |e| store_error("prepare the database's schema", path, e);
    // One transaction for the check and all migrations: two processes that start at once do not both migrate.
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(fail)?;
    refuse_foreign(&mut tx, path).await?;
    match migrator().run(&mut *tx).await {
        Ok(()) => tx.commit().await.map_err(fail),
        Err(MigrateError::VersionMismatch(v)) => Err(incompatible(
            path,
            &format!("its migration {v} has another content than this release's"),
        )),
        Err(MigrateError::Dirty(v)) => Err(incompatible(
            path,
            &format!("its migration {v} was left half-done"),
        )),
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => Err(fail(e)),
        Err(e) => Err(StoreError::Unavailable {
            what: "prepare the database's schema",
            source: Box::new(e),
        }),
    }
}

fn incompatible(path: &Path, why: &str) -> StoreError {
    StoreError::Incompatible {
        what: format!(
            "{} cannot be used: {why}. It was left as it is: start the release that wrote it, or give this one another state directory",
            path.display()
        ),
    }
}

/// Refuses a file that a newer release has closed to us, and one that is somebody else's.
async fn refuse_foreign(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let fail = |e| store_error("read the database's schema", path, e);
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
            .fetch_all(&mut *conn)
            .await
            .map_err(fail)?;
    let has = |name: &str| tables.iter().any(|t| t == name);
    if !has("store_state") {
        return if tables.is_empty() {
            Ok(())
        } else {
            Err(incompatible(path, "it holds other tables and no records"))
        };
    }
    let compatible_from: i64 =
        sqlx::query_scalar("SELECT compatible_from FROM store_state WHERE id = 1")
            .fetch_one(&mut *conn)
            .await
            .map_err(fail)?;
    if compatible_from > NEWEST {
        let why = format!(
            "a newer release wrote it (it needs schema {compatible_from}, this release knows {NEWEST})"
        );
        return Err(incompatible(path, &why));
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(conn)
            .await
            .map_err(fail)?;
    let newest_applied = applied.iter().copied().max().unwrap_or(0);
    let skipped = MIGRATIONS
        .iter()
        .map(|m| m.0)
        .find(|v| *v < newest_applied && !applied.contains(v));
    match skipped {
        Some(v) => Err(incompatible(
            path,
            &format!("another line of releases wrote it (migration {newest_applied} without {v})"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (i, (version, ..)) in MIGRATIONS.iter().enumerate() {
            assert_eq!(*version, i64::try_from(i).unwrap() + 1);
        }
    }

    /// A released migration is never edited. Add a line for a new one; never change one.
    #[test]
    fn released_migrations_are_unchanged() {
        let sums: Vec<String> = migrator()
            .iter()
            .map(|m| m.checksum[..8].iter().map(|b| format!("{b:02x}")).collect())
            .collect();
        assert_eq!(sums, ["d30abf7cc86a33b2"]);
    }
}
