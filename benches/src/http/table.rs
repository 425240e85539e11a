//! The result as a table, and held against the goals.

use std::fmt::Write as _;

use serde::Serialize;

use super::peers::{Budget, Kind};
use crate::figures::TIE;

/// What a cache made of the trace, after its first quarter.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Memory only, or memory and disk.
    pub setting: &'static str,
    /// What it may take.
    pub budget: Budget,
    /// What it was told that it may: less, where it took more than that.
    pub told: Budget,
    /// What it has taken: memory without pages of files on disk, with files on a tmpfs; files on disk.
    pub taken: Budget,
    /// Which.
    pub server: Kind,
    /// Requests that cost the origin none.
    pub object: f64,
    /// Bytes that it did not hand over.
    pub byte: f64,
    /// Bytes that the origin handed over.
    pub origin_bytes: u64,
    /// What all its processes take at the end.
    pub resident: u64,
    /// CPU seconds for 10^9 bytes of bodies.
    pub cpu_per_gigabyte: f64,
    /// CPU microseconds for a request.
    pub cpu_per_request: f64,
    /// Microseconds to the first byte: median and 99th percentile.
    pub first_byte: [f64; 2],
    /// Bytes written to disks for a byte requested.
    pub written_per_byte: f64,
    /// Requests answered wrongly.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
}

impl Row {
    /// Whether it has taken more than a tenth beyond what it was given: what it reached that way is held against nobody.
    pub fn is_over(&self) -> bool {
        self.budget.is_exceeded(self.taken)
    }
}

/// What the simulator says of ours.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Predicted {
    /// For which setting.
    pub setting: &'static str,
    /// Object hit ratio.
    pub object: f64,
    /// Byte hit ratio.
    pub byte: f64,
}

/// All of it, for people.
pub fn table(rows: &[Row], predicted: &[Predicted]) -> String {
    let mut out = format!(
        "{:<12} {:<15} {:>7} {:>7} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        "",
        "",
        "object",
        "byte",
        "origin GB",
        "memory",
        "disk",
        "CPU/GB",
        "CPU/req",
        "p50",
        "p99",
        "written"
    );
    let mut last = "";
    for row in rows {
        let setting = if row.setting == last { "" } else { row.setting };
        last = row.setting;
        let _ = write!(
            out,
            "{setting:<12} {:<15} {:>7.4} {:>7.4} {:>10.2} {:>8} {:>8} {:>8.2} {:>8.1} {:>8.0} {:>8.0} {:>8.3}",
            row.server.name(),
            row.object,
            row.byte,
            row.origin_bytes as f64 / 1e9,
            mebibytes(row.taken.memory),
            mebibytes(row.taken.disk.unwrap_or(0)),
            row.cpu_per_gigabyte,
            row.cpu_per_request,
            row.first_byte[0],
            row.first_byte[1],
            row.written_per_byte,
        );
        out.push_str(&notes(row));
        if let Some(first) = &row.first_wrong {
            let _ = write!(out, "  {} wrong: {first}", row.wrong);
        }
        out.push('\n');
        let simulated = predicted.iter().filter(|p| p.setting == row.setting);
        for predicted in simulated.filter(|_| row.server == Kind::EdgeCache) {
            let _ = writeln!(
                out,
                "{:<12} {:<15} {:>7.4} {:>7.4}",
                "", "  simulated", predicted.object, predicted.byte
            );
        }
    }
    out.push_str(
        "object, byte: requests and bytes that the origin was spared; memory, disk: MiB taken at the end, pages of files on disk left\n\
         out, files on a tmpfs counted; told: a cache that took more than a tenth beyond what it may was told less; CPU/GB: seconds for 10^9 bytes; CPU/req: microseconds; p50, p99:\n\
         microseconds to the first byte; written: bytes written to disk for a byte requested\n",
    );
    out
}

/// What a cache was told, and whether it kept to what it may take.
fn notes(row: &Row) -> String {
    let mut out = String::new();
    if row.told != row.budget {
        let disk = row.told.disk.map(|disk| format!(" and {}", mebibytes(disk)));
        let _ =
            write!(out, "  told {}{} MiB", mebibytes(row.told.memory), disk.unwrap_or_default());
    }
    if row.is_over() {
        out.push_str("  took more than it may");
    }
    out
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// What is below its goal, a line each.
pub fn below_goal(rows: &[Row], predicted: &[Predicted]) -> Vec<String> {
    let mut below = Vec::new();
    for row in rows {
        if row.wrong > 0 {
            below.push(format!(
                "{}, {}: {} answers were wrong",
                row.setting,
                row.server.name(),
                row.wrong
            ));
        }
    }
    let ours = || rows.iter().filter(|row| row.server == Kind::EdgeCache);
    for own in ours() {
        let peers =
            rows.iter().filter(|row| row.setting == own.setting && row.server != own.server);
        for peer in peers.filter(|peer| !peer.is_over()) {
            for (what, own_ratio, peer_ratio) in
                [("object", own.object, peer.object), ("byte", own.byte, peer.byte)]
            {
                if own_ratio < peer_ratio - TIE {
                    below.push(format!(
                        "{}: {what} hit ratio {own_ratio:.4}, that of {} {peer_ratio:.4}",
                        own.setting,
                        peer.server.name()
                    ));
                }
            }
        }
        for told in predicted.iter().filter(|told| told.setting == own.setting) {
            for (what, live, simulated) in
                [("object", own.object, told.object), ("byte", own.byte, told.byte)]
            {
                if (live - simulated).abs() > TIE {
                    below.push(format!(
                        "{}: {what} hit ratio {live:.4} live, {simulated:.4} simulated",
                        own.setting
                    ));
                }
            }
        }
    }
    below
}
