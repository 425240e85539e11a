//! `check`

use serde::Serialize;

use super::{BAD_CONFIG, DONE, Global, Output, config_path, fail, print, print_json};
use crate::io::load;

#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
    zones: usize,
    names: usize,
}

pub(super) fn run(global: &Global) -> u8 {
    let path = match config_path(global) {
        Ok(path) => path,
        Err(code) => return code,
    };
    let report = match load::load(&path) {
        Ok(loading) => Report {
            ok: true,
            errors: Vec::new(),
            warnings: loading.warnings,
            zones: loading.tables.zones.iter().count(),
            names: loading.tables.zones.names(),
        },
        Err(errors) => Report { ok: false, errors, warnings: Vec::new(), zones: 0, names: 0 },
    };
    match (global.output, report.ok) {
        (Output::Json, _) => print_json(&report),
        (Output::Table, true) => {
            for warning in &report.warnings {
                fail(warning, DONE);
            }
            print(&format!(
                "{} is good: {} zones, {} names, {} warnings\n",
                path.display(),
                report.zones,
                report.names,
                report.warnings.len()
            ));
        }
        (Output::Table, false) => {
            fail(&report.errors.join("\n"), BAD_CONFIG);
        }
    }
    if report.ok { DONE } else { BAD_CONFIG }
}
