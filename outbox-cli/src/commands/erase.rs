//! `erase`: the plan is shown, the operator confirms, then everything under a key is erased.

use super::{act::confirm, note};
use crate::{
    args::{Erase, Global},
    config, database,
    error::CliError,
    output::{Answer, Output, Table, shown},
};
use outbox_core::admin::{EraseStore, ErasurePlan, TableErasure};
use std::process::ExitCode;

/// Erases what is stored under a key.
pub(super) async fn erase(
    global: &Global,
    erase: &Erase,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    let plan = outbox.plan_erasure(&erase.key).await?;
    if erase.plan && output.json {
        output.document(&Answer { database: &target.name, result: &plan })?;
    } else if !output.json {
        write_plan(output, &plan)?;
    }
    let (found, left) = (rows(&plan.tables), left(&plan.tables));
    if erase.plan {
        return Ok(ExitCode::from(u8::from(found == 0 && left == 0)));
    }
    if found == 0 {
        let what = if left > 0 { "everything stored is still in use" } else { "nothing is stored" };
        return Err(CliError::NotFound(format!("{what} under the key `{}`", erase.key)));
    }
    confirm(global, &target, &format!("erase {found} rows of the key {}?", erase.key))?;
    let erased = outbox.erase(&erase.key, &note(&erase.note, false)).await?;
    if output.json {
        output.document(&Answer { database: &target.name, result: &erased })?;
    } else {
        output.line(format!("erased: {} rows", rows(&erased)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(tables: &[TableErasure]) -> u64 {
    tables.iter().map(|table| table.erased).sum()
}

fn left(tables: &[TableErasure]) -> u64 {
    tables.iter().map(|table| table.left.count).sum()
}

fn write_plan(output: &mut Output, plan: &ErasurePlan) -> Result<(), CliError> {
    output.line(format!("erase the key {}", shown(&plan.key)))?;
    let mut table = Table::new(&["table", "#rows", "#left"]);
    for part in &plan.tables {
        table.row([part.table.clone(), part.erased.to_string(), part.left.to_string()]);
    }
    table.write(output, "no table has a key")?;
    plan.notes.iter().try_for_each(|note| output.line(format!("  {}", shown(note))))
}
