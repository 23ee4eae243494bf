//! What a filter does: the instructions that the kernel accepts for seccomp, interpreted.

use assay::seccomp::{Action, Outcome};

/// `AUDIT_ARCH_X86_64`.
pub const X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub const I386: u32 = 0x4000_0003;
/// The bit by which a call of the x32 ABI is known.
pub const X32: u32 = 0x4000_0000;

/// A filter.
#[derive(Debug)]
pub struct Filter(Vec<Instruction>);

#[derive(Debug)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Filter {
    /// Reads `struct sock_filter[]`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (instructions, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty() && !instructions.is_empty());
        Self(
            instructions
                .iter()
                .map(|[c0, c1, if_true, if_false, k @ ..]| Instruction {
                    code: u16::from_ne_bytes([*c0, *c1]),
                    if_true: *if_true,
                    if_false: *if_false,
                    k: u32::from_ne_bytes(*k),
                })
                .collect(),
        )
    }

    /// What happens to a call.
    pub fn outcome(&self, architecture: u32, number: u32, arguments: &[u64; 6]) -> Outcome {
        let mut data = Vec::with_capacity(64);
        data.extend(number.to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        arguments
            .iter()
            .for_each(|argument| data.extend(argument.to_ne_bytes()));
        outcome(self.run(&data))
    }

    fn run(&self, data: &[u8]) -> u32 {
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let Instruction {
                code,
                if_true,
                if_false,
                k,
            } = &self.0[at];
            at += 1;
            let mut jump = |holds: bool| at += usize::from(if holds { *if_true } else { *if_false });
            match code {
                0x20 => accumulator = u32::from_ne_bytes(data[*k as usize..][..4].try_into().unwrap()),
                0x54 => accumulator &= k,
                0x05 => at += *k as usize,
                0x15 => jump(accumulator == *k),
                0x25 => jump(accumulator > *k),
                0x35 => jump(accumulator >= *k),
                0x45 => jump(accumulator & k != 0),
                0x06 => return *k,
                code => panic!("instruction {code:#x} at {}", at - 1),
            }
        }
    }
}

fn outcome(value: u32) -> Outcome {
    let (action, number) = match value & 0xffff_0000 {
        0x8000_0000 => (Action::KillProcess, 0),
        0x0000_0000 => (Action::KillThread, 0),
        0x0003_0000 => (Action::Trap, 0),
        0x0005_0000 => (Action::Errno, value & 0xffff),
        0x7fc0_0000 => (Action::Notify, 0),
        0x7ff0_0000 => (Action::Trace, value & 0xffff),
        0x7ffc_0000 => (Action::Log, 0),
        0x7fff_0000 => (Action::Allow, 0),
        other => panic!("action {other:#x}"),
    };
    Outcome { action, number }
}
