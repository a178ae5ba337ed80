//! What the program takes of the kernel, against `tests/budgets.txt`: nothing grows unless that file says so.
//!
//! `DETECTOR_WRITE_BUDGETS=1` writes what this kernel shows; lines of other kernels stay as they are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    path::Path,
};

use aya_obj::{
    Object,
    generated::{
        BPF_ADD, BPF_ALU, BPF_ALU64, BPF_CALL, BPF_DW, BPF_IMM, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MOV,
        BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, BPF_REG_5, BPF_REG_10, BPF_ST, BPF_STX, BPF_X, bpf_insn,
    },
};
use detector_common::limits::SOURCES_DEFAULT;
use detector_tests::rows::Rig;
use detector_user::kernel::load::{HANDSHAKES, OBJECT, PROGRAM};

/// The file as it was when this test was built: a booted kernel has no source tree.
const BUDGETS: &str = include_str!("../budgets.txt");

/// What the verifier counted on one series of kernels.
const VERIFIED: &str = "instructions verified on";

/// `MAX_BPF_STACK` of linux/filter.h, for all frames of a chain of calls, each rounded up to 32.
const STACK_BYTES_MAX: u64 = 512;

/// Budgets by their names, `program what`.
type Budgets = BTreeMap<String, u64>;

#[test]
fn nothing_grows_unnoticed() {
    let measured = measured();
    // Also where the running kernel takes more: it may round less.
    for (name, bytes) in measured.iter().filter(|(name, _)| name.ends_with("stack bytes")) {
        assert!(
            *bytes <= STACK_BYTES_MAX,
            "{name}: {bytes}, at most {STACK_BYTES_MAX}: Linux 6.1 refuses it"
        );
    }
    if env::var_os("DETECTOR_WRITE_BUDGETS").is_some() {
        return write(&measured);
    }
    let budgets = parse(BUDGETS);
    let mut wrong = Vec::new();
    for (name, value) in &measured {
        println!("{name}: {value}");
        match budgets.get(name) {
            Some(budget) if budget == value => {}
            Some(budget) => wrong.push(format!("{name}: {value}, and the file says {budget}")),
            // Each kernel counts verified instructions in its own way; the file knows some kernels.
            None if name.contains(VERIFIED) => {}
            None => wrong.push(format!("{name}: {value}, and the file does not say")),
        }
    }
    // Lines of other kernels apart, the file has no more than what is measured.
    for name in budgets.keys().filter(|name| !name.contains(VERIFIED) && !measured.contains_key(*name)) {
        wrong.push(format!("{name}: the file says so, and nothing measures it"));
    }
    assert!(
        wrong.is_empty(),
        "{}\nif it is meant, write tests/budgets.txt anew with DETECTOR_WRITE_BUDGETS=1 and say why in the commit",
        wrong.join("\n")
    );
}

fn measured() -> Budgets {
    let mut rig = Rig::new(SOURCES_DEFAULT);
    let bytes = rig.map_bytes();
    let mut budgets = Budgets::from([
        ("maps bytes".to_owned(), bytes.fixed),
        ("maps bytes for each cpu".to_owned(), bytes.each_cpu),
    ]);
    for name in [PROGRAM, HANDSHAKES] {
        let program = rig.bench_mut().loaded.named(name).expect("the program");
        let verified = program.info().expect("its info").verified_instruction_count();
        let verified = verified.expect("a kernel of 5.16 or later");
        let code = Code::of(name);
        budgets.extend([
            (format!("{name} instructions"), code.instructions.len() as u64),
            (format!("{name} stack bytes"), code.stack()),
            (format!("{name} {VERIFIED} {}", kernel()), u64::from(verified)),
        ]);
    }
    budgets
}

/// The running kernel's series, such as 6.18.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn parse(text: &str) -> Budgets {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("budgets.txt: {line}"));
            (name.trim().to_owned(), value.replace('_', "").parse().expect("a number"))
        })
        .collect()
}

fn write(measured: &Budgets) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.txt");
    let text = fs::read_to_string(&path).expect("tests/budgets.txt");
    let head = text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n"));
    let mut budgets = parse(&text);
    budgets.extend(measured.clone());
    let width = budgets.keys().map(String::len).max().unwrap_or(0);
    let rows = budgets.iter().map(|(name, value)| format!("{name:width$} {value}\n"));
    fs::write(&path, head.chain(rows).collect::<String>()).expect("tests/budgets.txt is written");
}

/// The code of a program, with all functions that it calls.
struct Code {
    instructions: Vec<bpf_insn>,
    /// Where each function starts.
    starts: BTreeSet<usize>,
}

impl Code {
    /// That of a program of the object, as it is given to the kernel. Branches that constants switch off are part of it.
    fn of(program: &str) -> Self {
        let mut object = Object::parse(OBJECT).expect("the object");
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).expect("calls are relocated");
        let instructions = object.functions[&object.programs[program].function_key()].instructions.clone();
        let calls = (0..instructions.len()).filter_map(|at| callee(&instructions, at));
        let starts = calls.chain([0]).collect();
        Self { instructions, starts }
    }

    /// The deepest stack of a chain of calls, as the kernel reckons: each frame in steps of 32 bytes
    /// (`check_max_stack_depth` in kernel/bpf/verifier.c; interpreters apart, 6.1 to 6.18 count in steps of 32 or 16).
    fn stack(&self) -> u64 {
        self.stack_of(0, &mut HashMap::new())
    }

    fn stack_of(&self, start: usize, known: &mut HashMap<usize, u64>) -> u64 {
        if let Some(&stack) = known.get(&start) {
            return stack;
        }
        let end = self.starts.range(start + 1..).next().copied().unwrap_or(self.instructions.len());
        let mut lowest = 0;
        // Registers that hold an address on the stack: its offset from the frame pointer.
        let mut addresses = HashMap::from([(BPF_REG_10 as u8, 0_i64)]);
        let mut deepest_callee = 0;
        for at in start..end {
            let instruction = &self.instructions[at];
            let (to, from) = (instruction.dst_reg(), instruction.src_reg());
            let code = u32::from(instruction.code);
            let offset = i64::from(instruction.off);
            match code & 7 {
                BPF_LDX => lowest = lowest.min(addresses.get(&from).map_or(0, |base| base + offset)),
                BPF_ST | BPF_STX => lowest = lowest.min(addresses.get(&to).map_or(0, |base| base + offset)),
                _ => {}
            }
            if code == BPF_ALU64 | BPF_MOV | BPF_X {
                addresses.remove(&to);
                if from == BPF_REG_10 as u8 {
                    addresses.insert(to, 0);
                }
            } else if code == BPF_ALU64 | BPF_ADD | BPF_K {
                if let Some(address) = addresses.get_mut(&to) {
                    *address += i64::from(instruction.imm);
                    lowest = lowest.min(*address);
                }
            } else if matches!(code & 7, BPF_LDX | BPF_LD | BPF_ALU | BPF_ALU64) && to != BPF_REG_10 as u8 {
                addresses.remove(&to);
            } else if code == BPF_JMP | BPF_CALL {
                // The callee may change these.
                addresses.retain(|&register, _| register > BPF_REG_5 as u8);
            }
            if let Some(callee) = callee(&self.instructions, at) {
                deepest_callee = deepest_callee.max(self.stack_of(callee, known));
            }
        }
        let stack = lowest.unsigned_abs().next_multiple_of(32).max(32) + deepest_callee;
        known.insert(start, stack);
        stack
    }
}

/// The function that an instruction calls, or whose address it takes for a helper to call.
fn callee(instructions: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = &instructions[at];
    let kind = u32::from(instruction.src_reg());
    let calls = u32::from(instruction.code) == BPF_JMP | BPF_CALL && kind == BPF_PSEUDO_CALL;
    let names = u32::from(instruction.code) == BPF_LD | BPF_DW | BPF_IMM && kind == BPF_PSEUDO_FUNC;
    (calls || names).then(|| (at as i64 + 1 + i64::from(instruction.imm)) as usize)
}
