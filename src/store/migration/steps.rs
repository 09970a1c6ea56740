//! The migrations that the database has, beside those of this program.

use sea_orm::{DbErr, EntityTrait as _};
use sea_orm_migration::{MigratorTrait as _, SchemaManager, seaql_migrations};

use super::Migrator;

/// A migration and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// True if it was applied.
    pub applied: bool,
    /// False if a newer program applied it, and this one does not have it.
    pub known: bool,
}

/// Migrations in order.
pub type Steps = Vec<Step>;

/// Why this program cannot tell what the tables are.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database does not say.
    #[error("the migrations of the database cannot be read or applied")]
    Database(#[from] DbErr),
    /// Those that only the database has are not all newer than this program's.
    #[error(
        "the database has migrations that this program does not have and that are not newer than its own: {0}; another \
         program made it, or another branch of this one"
    )]
    Unknown(String),
    /// The database goes on past a migration that it lacks.
    #[error(
        "the database lacks migrations that this program has ({lacks}), and has newer ones ({newer}): another program made \
         it, or another branch of this one"
    )]
    Gap {
        /// Names, with commas between.
        lacks: String,
        /// The same.
        newer: String,
    },
}

/// Reads what the database has, without creating the library's table.
pub(super) async fn read(manager: &SchemaManager<'_>) -> Result<Steps, SchemaError> {
    let mut applied = Vec::new();
    if manager.has_table("seaql_migrations").await? {
        let rows = seaql_migrations::Entity::find().all(manager.get_connection()).await?;
        applied.extend(rows.into_iter().map(|row| row.version));
    }
    let own: Vec<String> = Migrator::migrations().iter().map(|own| own.name().to_owned()).collect();
    compare(&own, applied)
}

/// Migrations only add within a minor version, so a program can work with those behind its last; names begin with their date
/// and number. Any other that it does not have is of another program.
fn compare(own: &[String], mut applied: Vec<String>) -> Result<Steps, SchemaError> {
    applied.sort();
    let step = |name: &String| Step { name: name.clone(), applied: applied.contains(name), known: true };
    let mut steps: Steps = own.iter().map(step).collect();
    let lacks = names(steps.iter().filter(|step| !step.applied).map(|step| &step.name));
    let (newer, unknown): (Vec<_>, Vec<_>) =
        applied.iter().filter(|name| !own.contains(name)).partition(|name| own.last() < Some(*name));
    if !unknown.is_empty() {
        return Err(SchemaError::Unknown(names(unknown)));
    }
    if !newer.is_empty() && !lacks.is_empty() {
        return Err(SchemaError::Gap { lacks, newer: names(newer) });
    }
    steps.extend(newer.into_iter().map(|name| Step { name: name.clone(), applied: true, known: false }));
    Ok(steps)
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_behind_all_of_ours_is_newer() {
        let texts = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let own = texts("m2026_1 m2026_2 m2026_3");
        let cases = [
            ("", "m2026_1- m2026_2- m2026_3-"),
            ("m2026_2 m2026_1", "m2026_1+ m2026_2+ m2026_3-"),
            ("m2026_1 m2026_2 m2026_3", "m2026_1+ m2026_2+ m2026_3+"),
            ("m2026_5 m2026_3 m2026_4 m2026_2 m2026_1", "m2026_1+ m2026_2+ m2026_3+ m2026_4? m2026_5?"),
            ("m2026_1 m2026_2 m2026_3 m2025_9", "Unknown(\"m2025_9\")"),
            ("m2025_9 m2026_2b m2026_4", "Unknown(\"m2025_9, m2026_2b\")"),
            ("m2026_1 m2026_3 m2026_4", "Gap { lacks: \"m2026_2\", newer: \"m2026_4\" }"),
            ("m2027_1", "Gap { lacks: \"m2026_1, m2026_2, m2026_3\", newer: \"m2027_1\" }"),
        ];
        for (applied, want) in cases {
            let shown = |step: &Step| match step {
                Step { known: false, name, .. } => format!("{name}?"),
                Step { applied: true, name, .. } => format!("{name}+"),
                Step { name, .. } => format!("{name}-"),
            };
            let got = compare(&own, texts(applied)).map_or_else(
                |error| format!("{error:?}"),
                |steps| steps.iter().map(shown).collect::<Vec<_>>().join(" "),
            );
            assert_eq!(got, want, "{applied}");
        }
    }
}
