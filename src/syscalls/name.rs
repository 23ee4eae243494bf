//! Names of system calls by number, from the kernel's tables as the `syscalls` crate ships them.

use syscalls::{aarch64, x86_64};

use super::Machine;

/// Above the numbers of all system calls; the kernel adds a few each year and is below 500.
const MAX_NUMBER: u32 = 1024;

/// The name of a system call, if the machine has one of that number.
#[must_use]
pub fn name(machine: Machine, number: u32) -> Option<&'static str> {
    let number = usize::try_from(number).ok()?;
    match machine {
        Machine::X86_64 => x86_64::Sysno::new(number).map(|call| call.name()),
        Machine::Aarch64 => aarch64::Sysno::new(number).map(|call| call.name()),
    }
}

/// The system calls of a machine in order of their numbers, with their names.
pub fn all(machine: Machine) -> impl Iterator<Item = (u32, &'static str)> {
    (0..MAX_NUMBER).filter_map(move |number| Some((number, name(machine, number)?)))
}

/// The number of a system call, if the machine has it.
#[must_use]
pub fn number(machine: Machine, name: &str) -> Option<u32> {
    let id = match machine {
        Machine::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
        Machine::Aarch64 => name.parse::<aarch64::Sysno>().ok()?.id(),
    };
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_kernels() {
        assert_eq!(name(Machine::X86_64, 101), Some("ptrace"));
        assert_eq!(number(Machine::X86_64, "openat2"), Some(437));
        assert_eq!(number(Machine::Aarch64, "openat"), Some(56));
        assert_eq!(number(Machine::Aarch64, "open"), None, "AArch64 never had it");
        assert_eq!(name(Machine::X86_64, 100_000), None);
        let last = all(Machine::X86_64).last();
        assert_eq!(last.map(|(_, name)| name), Some(x86_64::Sysno::last().name()));
    }
}
