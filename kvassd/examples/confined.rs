//! Runs a program under the filters that a unit file asks the service manager for, where no service manager is needed:
//! `confined CALLS PROGRAM [ARGUMENT…]`.
//!
//! CALLS is a file with the names of the system calls that are allowed, one a line; those that this processor does not
//! have are passed over. Sockets may be AF_UNIX, AF_INET and AF_INET6, and no memory is writable and executable. All
//! else fails with EPERM.

use std::error::Error;

type Failure = Box<dyn Error>;

#[cfg(not(target_os = "linux"))]
fn main() -> Result<(), Failure> {
    Err("only Linux has these filters".into())
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;

    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [calls, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: confined CALLS PROGRAM [ARGUMENT…]".into());
    };
    let calls = std::fs::read_to_string(calls)?;
    filter::apply(&filter::memory())?;
    filter::apply(&filter::calls(calls.lines()))?;
    Err(std::process::Command::new(program).args(rest).exec().into())
}

#[cfg(target_os = "linux")]
mod filter {
    use nix::libc::{AF_INET, AF_INET6, AF_UNIX, EPERM, PROT_EXEC, PROT_WRITE};
    use seccompiler::{TargetArch, apply_filter, compile_from_json};
    use serde_json::{Value, json};

    use super::Failure;

    pub(super) fn apply(filter: &Value) -> Result<(), Failure> {
        let programs = compile_from_json(json!({ "filter": filter }).to_string().as_bytes(), processor()?)?;
        programs.values().try_for_each(|program| Ok(apply_filter(program)?))
    }

    /// Allows these calls alone.
    pub(super) fn calls<'a>(names: impl Iterator<Item = &'a str>) -> Value {
        let mut rules = Vec::new();
        for name in names.filter(|name| is_known(name)) {
            if name == "socket" {
                rules.extend([AF_UNIX, AF_INET, AF_INET6].map(|family| rule(name, 0, &json!("eq"), family)));
            } else {
                rules.push(json!({ "syscall": name }));
            }
        }
        json!({ "mismatch_action": { "errno": EPERM }, "match_action": "allow", "filter": rules })
    }

    /// Forbids memory that is writable and executable, or becomes executable.
    pub(super) fn memory() -> Value {
        let has = |bits| json!({ "masked_eq": bits });
        let both = PROT_WRITE | PROT_EXEC;
        let rules = [
            rule("mmap", 2, &has(both), both),
            rule("mprotect", 2, &has(PROT_EXEC), PROT_EXEC),
            rule("pkey_mprotect", 2, &has(PROT_EXEC), PROT_EXEC),
        ];
        json!({ "mismatch_action": "allow", "match_action": { "errno": EPERM }, "filter": rules })
    }

    fn rule(name: &str, argument: u8, operator: &Value, value: i32) -> Value {
        json!({ "syscall": name, "args": [{ "index": argument, "type": "dword", "op": operator, "val": value }] })
    }

    fn is_known(name: &str) -> bool {
        let alone = json!({ "filter": {
            "mismatch_action": "trap", "match_action": "allow", "filter": [{ "syscall": name }],
        } });
        processor().is_ok_and(|processor| compile_from_json(alone.to_string().as_bytes(), processor).is_ok())
    }

    fn processor() -> Result<TargetArch, Failure> {
        Ok(std::env::consts::ARCH.try_into()?)
    }
}
