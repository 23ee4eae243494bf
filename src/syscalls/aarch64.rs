//! AArch64 instructions: what they refer to, and what they do to registers and memory.
//!
//! Every instruction has four bytes, so a matcher for those that carry addresses and numbers is enough; what it does
//! not know is taken to overwrite its destination. Encodings: Arm Architecture Reference Manual for A-profile, C4.1.

use super::code::{Decode, End, Event, Kind, Slots};
use super::elf::Elf;
use super::held::Treats;
use super::slice::{Abi, How, Place, Source, Step, Store};

const SP: u8 = 31;
const FP: u8 = 29;
/// Pages that are remembered for one register of one function.
const MAX_PAGES: usize = 8;

/// The calling convention (AAPCS64) and the kernel's.
pub(super) const ABI: Abi = Abi {
    stack: SP,
    frame: FP,
    number: 8,
    // x0–x18 and the link register
    clobbered: 0x4007_ffff,
    results: &[0, 1, 2, 3, 4, 5, 6, 7],
    arguments: &[0, 1, 2, 3, 4, 5, 6, 7],
    register_arguments: 8,
    return_address: 0,
    fixed_length: Some(4),
};

/// A matcher over the code of one file.
pub(super) struct Aarch64<'a, 'b> {
    elf: &'a Elf<'b>,
    slots: &'a Slots,
    /// Page addresses that `adrp` and `adr` put into each register in this function, the last one last. Blocks are not
    /// laid out in the order in which they run: an earlier one may be the one that counts.
    pages: [Vec<u32>; 32],
    used: bool,
}

impl<'a, 'b> Aarch64<'a, 'b> {
    pub fn new(elf: &'a Elf<'b>, slots: &'a Slots) -> Self {
        Self {
            elf,
            slots,
            pages: Default::default(),
            used: false,
        }
    }

    fn word(&self, at: u32) -> Option<u32> {
        if !at.is_multiple_of(4) || !self.elf.is_code(at) {
            return None;
        }
        self.elf.word32(at)
    }

    /// What an address that code computes, or loads from, is.
    fn refer(&self, at: u32, target: u32, loads: Option<u8>, last: bool, events: &mut Vec<Event>) {
        if self.elf.segment(target).is_none() {
            return;
        }
        let kind = if self.slots.symbol(target).is_some() {
            match loads.and_then(|register| self.branches_soon(at, register)) {
                Some(kind) => kind,
                None => Kind::SlotUse,
            }
        } else if self.elf.is_code(target) {
            if loads.is_none() && last {
                Kind::Taken
            } else {
                Kind::Word
            }
        } else {
            Kind::Data
        };
        if kind == Kind::Taken && !target.is_multiple_of(4) {
            return;
        }
        events.push(Event { at, kind, target });
    }

    /// A loaded slot that the next instructions jump to or call, as every stub of a PLT does.
    fn branches_soon(&self, at: u32, register: u8) -> Option<Kind> {
        for distance in [4, 8] {
            let word = self.word(at.checked_add(distance)?)?;
            if word & 0xffff_fc1f == 0xd61f_0000 && field(word, 5) == register {
                return Some(Kind::SlotJump);
            }
            if word & 0xffff_fc1f == 0xd63f_0000 && field(word, 5) == register {
                return Some(Kind::SlotCall);
            }
            // Only the addition that completes a stub's other register may lie between.
            if word & 0x7f80_0000 != 0x1100_0000 || field(word, 0) == register {
                return None;
            }
        }
        None
    }

    fn remember(&mut self, register: u8, page: u32) {
        self.used = true;
        if let Some(pages) = self.pages.get_mut(usize::from(register)) {
            pages.retain(|known| *known != page);
            if pages.len() == MAX_PAGES {
                pages.remove(0);
            }
            pages.push(page);
        }
    }

    fn through(&self, at: u32, base: u8, offset: u32, loads: Option<u8>, events: &mut Vec<Event>) {
        let Some(pages) = self.pages.get(usize::from(base)) else {
            return;
        };
        for (index, page) in pages.iter().enumerate() {
            let last = index + 1 == pages.len();
            if let Some(target) = page.checked_add(offset)
                && (last || self.slots.symbol(target).is_some() || self.elf.is_code(target))
            {
                self.refer(at, target, loads, last, events);
            }
        }
    }
}

fn field(word: u32, from: u32) -> u8 {
    u8::try_from(word >> from & 31).unwrap_or_default()
}

/// A signed field of `bits` bits at `from`, times four.
fn branch(word: u32, from: u32, bits: u32) -> i64 {
    let value = i64::from(word >> from) & ((1 << bits) - 1);
    let sign = 1i64 << (bits - 1);
    ((value ^ sign) - sign) * 4
}

fn page_offset(word: u32) -> i64 {
    let value = i64::from((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3);
    (value ^ 0x10_0000) - 0x10_0000
}

fn moved(at: u32, by: i64) -> Option<u32> {
    u32::try_from(i64::from(at) + by).ok()
}

/// Width in bytes and place of a plain load or store with an unsigned offset.
fn plain_access(word: u32) -> Option<(u32, bool)> {
    (word & 0x3f00_0000 == 0x3900_0000).then_some((1 << (word >> 30), word >> 22 & 3 != 0))
}

impl Decode for Aarch64<'_, '_> {
    fn reset(&mut self) {
        if self.used {
            self.pages.iter_mut().for_each(Vec::clear);
            self.used = false;
        }
    }

    fn decode(&mut self, at: u32, events: &mut Vec<Event>) -> (u32, End) {
        let Some(word) = self.word(at) else {
            return (4 - at % 4, End::Invalid);
        };
        let jump = |by: i64, kind: Kind, events: &mut Vec<Event>| {
            if let Some(target) = moved(at, by).filter(|target| self.elf.is_code(*target)) {
                events.push(Event { at, kind, target });
            }
        };
        let end = match word {
            _ if word & 0xfc00_0000 == 0x1400_0000 => {
                jump(branch(word, 0, 26), Kind::Jump, events);
                End::Never
            }
            _ if word & 0xfc00_0000 == 0x9400_0000 => {
                jump(branch(word, 0, 26), Kind::Call, events);
                End::Call
            }
            _ if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 => {
                jump(branch(word, 5, 19), Kind::Jump, events);
                End::Next
            }
            _ if word & 0x7e00_0000 == 0x3600_0000 => {
                jump(branch(word, 5, 14), Kind::Jump, events);
                End::Next
            }
            _ if word & 0xffff_fc1f == 0xd61f_0000 => {
                // A jump whose target was added up comes from a table of offsets.
                let before = at
                    .checked_sub(4)
                    .and_then(|before| self.word(before))
                    .unwrap_or_default();
                if before & 0x7f20_0000 == 0x0b20_0000 && field(before, 0) == field(word, 5) {
                    events.push(Event {
                        at,
                        kind: Kind::TableJump,
                        target: 0,
                    });
                } else {
                    events.push(Event {
                        at,
                        kind: Kind::Return,
                        target: 0,
                    });
                }
                End::Never
            }
            _ if word & 0xffff_fc1f == 0xd63f_0000
                || word & 0xffff_f81f == 0xd63f_081f
                || word & 0xffff_f800 == 0xd73f_0800 =>
            {
                End::Call
            }
            // ret, retaa, retab, braa, braaz, eret
            _ if word & 0xffff_fc1f == 0xd65f_0000
                || word & 0xffff_fbff == 0xd65f_0bff
                || word & 0xffff_f81f == 0xd61f_081f
                || word & 0xffff_f800 == 0xd71f_0800
                || word == 0xd69f_03e0 =>
            {
                events.push(Event {
                    at,
                    kind: Kind::Return,
                    target: 0,
                });
                End::Never
            }
            _ if word & 0xffe0_001f == 0xd400_0001 => {
                events.push(Event {
                    at,
                    kind: Kind::Site,
                    target: 0,
                });
                End::Next
            }
            // brk, hlt, udf
            _ if word & 0xffe0_001f == 0xd420_0000 || word & 0xffe0_001f == 0xd440_0000 || word & 0xffff_0000 == 0 => {
                End::Never
            }
            _ if word & 0x9f00_0000 == 0x1000_0000 => {
                if let Some(target) = moved(at, page_offset(word)) {
                    // Also the base of a table of byte or half-word offsets.
                    let inside = self.elf.is_code(target);
                    let near = inside && target.abs_diff(at) < 1 << 12;
                    let kind = if near {
                        Kind::Word
                    } else if inside {
                        Kind::Taken
                    } else {
                        Kind::Data
                    };
                    events.push(Event { at, kind, target });
                    self.remember(field(word, 0), target);
                }
                End::Next
            }
            _ if word & 0x9f00_0000 == 0x9000_0000 => {
                if let Some(page) = moved(at & !0xfff, page_offset(word) << 12) {
                    self.remember(field(word, 0), page);
                }
                End::Next
            }
            _ if word & 0xff80_0000 == 0x9100_0000 => {
                let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
                self.through(at, field(word, 5), (word >> 10 & 0xfff) << shift, None, events);
                End::Next
            }
            _ if plain_access(word).is_some() => {
                let (size, loads) = plain_access(word).unwrap_or_default();
                let register = (loads && word >> 26 & 1 == 0).then_some(field(word, 0));
                self.through(at, field(word, 5), (word >> 10 & 0xfff) * size, register, events);
                End::Next
            }
            _ if word & 0x3b00_0000 == 0x1800_0000 => {
                if let Some(target) = moved(at, branch(word, 5, 19)) {
                    self.refer(at, target, Some(field(word, 0)), true, events);
                }
                End::Next
            }
            0xd503_201f => End::Nop,
            _ => End::Next,
        };
        (4, end)
    }

    fn table(&mut self, _jump: u32, _before: &[u32]) -> Option<(u32, u32)> {
        None
    }

    fn entries(&mut self, _jump: u32, _before: &[u32]) -> Option<(u32, u32)> {
        None
    }

    fn treats(&mut self, _at: u32, _register: u8) -> Treats {
        // The matcher does not know every instruction that reads a register.
        Treats::Reads
    }

    fn step(&mut self, at: u32) -> Option<Step> {
        let word = self.word(at)?;
        let mut step = Step {
            length: 4,
            ..Step::default()
        };
        let (rd, rn, rm) = (field(word, 0), field(word, 5), field(word, 16));
        let wide = word >> 31 == 1;
        let clobber = |step: &mut Step, register: u8| step.writes |= if register == 31 { 0 } else { 1 << register };
        let register = |number: u8| match number {
            31 => Source::Constant(0),
            number => Source::Place(Place::Register(number)),
        };
        match word {
            // movz, movn, movk
            _ if word & 0x7f80_0000 == 0x5280_0000 => {
                let value = u64::from(word >> 5 & 0xffff) << (16 * (word >> 21 & 3));
                step.assign(Place::Register(rd), Source::Constant(value), How::SAME);
            }
            _ if word & 0x7f80_0000 == 0x1280_0000 => {
                let value = !(u64::from(word >> 5 & 0xffff) << (16 * (word >> 21 & 3)));
                step.assign(Place::Register(rd), Source::Constant(value), How::SAME);
            }
            _ if word & 0x7f80_0000 == 0x7280_0000 => {
                let shift = 16 * (word >> 21 & 3);
                let how = How::masked(!(0xffff << shift), u64::from(word >> 5 & 0xffff) << shift);
                step.assign(Place::Register(rd), Source::Place(Place::Register(rd)), how);
            }
            // mov register
            _ if word & 0x7fe0_ffe0 == 0x2a00_03e0 => step.assign(Place::Register(rd), register(rm), How::SAME),
            // add, sub immediate; here 31 is the stack pointer
            _ if word & 0x3f80_0000 == 0x1100_0000 => {
                let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
                let value = u64::from(word >> 10 & 0xfff) << shift;
                let value = if word >> 30 & 1 == 1 {
                    value.wrapping_neg()
                } else {
                    value
                };
                step.assign(
                    Place::Register(rd),
                    Source::Place(Place::Register(rn)),
                    How::added(value),
                );
            }
            // csel, csinc with the zero register (cset)
            _ if word & 0x7fe0_0c00 == 0x1a80_0000 => {
                step.assign(Place::Register(rd), register(rn), How::SAME);
                step.assign(Place::Register(rd), register(rm), How::SAME);
            }
            _ if word & 0x7fff_0fe0 == 0x1a9f_07e0 => {
                step.assign(Place::Register(rd), Source::Choice(0, 1), How::SAME);
            }
            // adr, adrp
            _ if word & 0x9f00_0000 == 0x1000_0000 => {
                let from = moved(at, page_offset(word)).map_or(Source::Opaque, Source::Address);
                step.assign(Place::Register(rd), from, How::SAME);
            }
            _ if word & 0x9f00_0000 == 0x9000_0000 => {
                let from = moved(at & !0xfff, page_offset(word) << 12).map_or(Source::Opaque, Source::Address);
                step.assign(Place::Register(rd), from, How::SAME);
            }
            // Branches, exceptions, system registers
            _ if word & 0x1c00_0000 == 0x1400_0000 => {
                let (_, end) = self.decode(at, &mut Vec::new());
                step.ends = matches!(end, End::Never | End::Invalid);
                step.call = end == End::Call;
                if word & 0xffe0_001f == 0xd400_0001 {
                    step.writes = 1;
                } else if word & 0xfff0_0000 == 0xd530_0000 {
                    clobber(&mut step, rd);
                }
            }
            _ if word & 0xffff_0000 == 0 => step.ends = true,
            // Loads and stores
            _ if word & 0x0a00_0000 == 0x0800_0000 => access(word, at, wide, self.elf, &mut step),
            _ => clobber(&mut step, rd),
        }
        Some(step)
    }
}

/// What a load or store does. Forms that are not told apart count as writing everything they may write.
fn access(word: u32, at: u32, wide: bool, elf: &Elf<'_>, step: &mut Step) {
    let (rt, rn, vector) = (field(word, 0), field(word, 5), word >> 26 & 1 == 1);
    let mut clobber = 0u32;
    let mut add = |register: u8| clobber |= if register == 31 { 0 } else { 1 << register };
    if let Some((size, loads)) = plain_access(word) {
        let place = Place::Memory {
            base: rn,
            offset: i64::from(word >> 10 & 0xfff) * i64::from(size),
        };
        plain(step, place, rt, size, loads, vector);
        return;
    }
    // Unscaled, pre- and post-indexed: one register, nine bits of offset.
    if word & 0x3b20_0000 == 0x3800_0000 {
        let offset = (i64::from(word >> 12 & 0x1ff) ^ 0x100) - 0x100;
        let (mode, loads) = (word >> 10 & 3, word >> 22 & 3 != 0);
        let place = Place::Memory {
            base: rn,
            offset: if mode == 1 { 0 } else { offset },
        };
        plain(step, place, rt, 1 << (word >> 30), loads, vector);
        if mode & 1 == 1 {
            step.assign(
                Place::Register(rn),
                Source::Place(Place::Register(rn)),
                How::added(offset.cast_unsigned()),
            );
        }
        return;
    }
    // Pairs
    if word & 0x3a00_0000 == 0x2800_0000 {
        let size: i64 = if wide { 8 } else { 4 };
        let offset = ((i64::from(word >> 15 & 0x7f) ^ 0x40) - 0x40) * size;
        let (mode, loads, second) = (word >> 23 & 3, word >> 22 & 1 == 1, field(word, 10));
        let first = if mode == 1 { 0 } else { offset };
        if vector {
            if !loads {
                step.store = Store::At {
                    base: rn,
                    offset: first,
                    size: 32,
                };
            }
        } else {
            for (register, offset) in [(rt, first), (second, first + size)] {
                let place = Place::Memory { base: rn, offset };
                if loads {
                    if register != 31 {
                        step.assign(Place::Register(register), Source::Place(place), How::SAME);
                    }
                } else {
                    let from = match register {
                        31 => Source::Constant(0),
                        register => Source::Place(Place::Register(register)),
                    };
                    step.assign(place, from, How::SAME);
                    step.stored = if wide { 8 } else { 4 };
                }
            }
        }
        if mode & 1 == 1 {
            step.assign(
                Place::Register(rn),
                Source::Place(Place::Register(rn)),
                How::added(offset.cast_unsigned()),
            );
        }
        return;
    }
    // Literal
    if word & 0x3b00_0000 == 0x1800_0000 {
        if !vector && rt != 31 {
            let from = moved(at, branch(word, 5, 19)).filter(|address| elf.segment(*address).is_some());
            step.assign(
                Place::Register(rt),
                from.map_or(Source::Opaque, Source::Global),
                How::SAME,
            );
        }
        return;
    }
    // Exclusive, atomic, register offsets, vector structures
    if !vector {
        add(rt);
        add(field(word, 16));
    }
    step.writes |= clobber;
    step.store = Store::Anywhere;
}

fn plain(step: &mut Step, place: Place, register: u8, size: u32, loads: bool, vector: bool) {
    if loads {
        if !vector && register != 31 {
            if size >= 4 {
                step.assign(Place::Register(register), Source::Place(place), How::SAME);
            } else {
                step.writes |= 1 << register;
            }
        }
        return;
    }
    let Place::Memory { base, offset } = place else { return };
    if vector || size < 4 {
        step.store = Store::At {
            base,
            offset,
            size: if vector { 16 } else { 2 },
        };
        return;
    }
    let from = match register {
        31 => Source::Constant(0),
        register => Source::Place(Place::Register(register)),
    };
    step.assign(place, from, How::SAME);
    step.stored = u8::try_from(size).unwrap_or(u8::MAX);
}
