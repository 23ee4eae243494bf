//! x86-64 instructions: what they refer to, and what they do to registers and memory.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions,
    Mnemonic, OpAccess, OpKind, Register,
};

use super::code::{Decode, End, Event, Kind, Slots};
use super::elf::Elf;
use super::held::Treats;
use super::slice::{Abi, How, Move, Place, Source, Step, Store};

/// Registers by number, as `iced` numbers them.
pub(super) const RSP: u8 = 4;
const RBP: u8 = 5;

/// The calling convention and the kernel's.
pub(super) const ABI: Abi = Abi {
    stack: RSP,
    frame: RBP,
    number: 0,
    // rax, rcx, rdx, rsi, rdi, r8–r11
    clobbered: 0b0000_1111_1100_0111,
    results: &[0, 2, 1],
    arguments: &[7, 6, 2, 1, 8, 9, 10, 11],
    register_arguments: 6,
    return_address: 8,
    fixed_length: None,
};

/// A decoder over the code of one file.
pub(super) struct X86<'a, 'b> {
    elf: &'a Elf<'b>,
    slots: &'a Slots,
    ranges: Vec<(u32, u32, Decoder<'b>)>,
    current: usize,
    instruction: Instruction,
    info: InstructionInfoFactory,
    /// An instruction added to a register, and none behind it changes that: a jump through it is a jump through a table.
    added: Register,
}

impl<'a, 'b> X86<'a, 'b> {
    pub fn new(elf: &'a Elf<'b>, slots: &'a Slots) -> Self {
        let ranges = elf
            .code
            .iter()
            .filter_map(|(start, end)| {
                let bytes = elf.bytes(*start, (end - start) as usize)?;
                Some((
                    *start,
                    *end,
                    Decoder::with_ip(64, bytes, u64::from(*start), DecoderOptions::NONE),
                ))
            })
            .collect();
        Self {
            elf,
            slots,
            ranges,
            current: 0,
            instruction: Instruction::default(),
            info: InstructionInfoFactory::new(),
            added: Register::None,
        }
    }

    fn read(&mut self, at: u32) -> bool {
        let holds = |range: &(u32, u32, Decoder<'_>)| range.0 <= at && at < range.1;
        if !self.ranges.get(self.current).is_some_and(holds) {
            let after = self.ranges.partition_point(|range| range.0 <= at);
            match after
                .checked_sub(1)
                .filter(|index| self.ranges.get(*index).is_some_and(holds))
            {
                Some(index) => self.current = index,
                None => return false,
            }
        }
        let Some((start, _, decoder)) = self.ranges.get_mut(self.current) else {
            return false;
        };
        if decoder.ip() != u64::from(at) {
            if decoder.set_position((at - *start) as usize).is_err() {
                return false;
            }
            decoder.set_ip(u64::from(at));
        }
        decoder.decode_out(&mut self.instruction);
        !self.instruction.is_invalid()
    }

    /// The address that an instruction's memory operand names on its own.
    fn memory(&self) -> Option<u32> {
        let instruction = &self.instruction;
        if instruction.is_ip_rel_memory_operand() {
            return u32::try_from(instruction.ip_rel_memory_address())
                .ok()
                .filter(|address| self.elf.segment(*address).is_some());
        }
        if self.elf.relocatable || instruction.memory_displ_size() < 4 {
            return None;
        }
        self.elf.address(instruction.memory_displacement64())
    }

    fn refer(&self, at: u32, events: &mut Vec<Event>) {
        let instruction = &self.instruction;
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory => {
                    if let Some(target) = self.memory() {
                        let kind = if self.slots.symbol(target).is_some() {
                            Kind::SlotUse
                        } else if !self.elf.is_code(target) {
                            Kind::Data
                        } else if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
                            Kind::Taken
                        } else {
                            Kind::Word
                        };
                        events.push(Event { at, kind, target });
                    }
                }
                OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 if !self.elf.relocatable => {
                    if let Some(target) = self.elf.address(instruction.immediate(operand)) {
                        let kind = if self.elf.is_code(target) {
                            Kind::Word
                        } else {
                            Kind::Data
                        };
                        events.push(Event { at, kind, target });
                    }
                }
                _ => {}
            }
        }
    }

    fn branch(&self) -> Option<u32> {
        match self.instruction.op0_kind() {
            OpKind::NearBranch64 => u32::try_from(self.instruction.near_branch64())
                .ok()
                .filter(|target| self.elf.is_code(*target)),
            _ => None,
        }
    }
}

impl Decode for X86<'_, '_> {
    fn table(&mut self, jump: u32, before: &[u32]) -> Option<(u32, u32)> {
        if !self.read(jump) || self.instruction.op0_kind() != OpKind::Register {
            return None;
        }
        // Backwards: `jmp *entry`, `add base, entry`, `movslq (base, index, 4), entry`, `lea table(%rip), base`.
        let target = self.instruction.op0_register();
        let (mut added, mut base) = (None, None);
        for at in before {
            if !self.read(*at) {
                return None;
            }
            let i = self.instruction;
            let to = (i.op0_kind() == OpKind::Register).then(|| i.op0_register());
            let (mnemonic, plain) = (i.mnemonic(), i.memory_displacement64() == 0);
            match (added, base) {
                (None, _) if mnemonic == Mnemonic::Add && to == Some(target) && i.op1_kind() == OpKind::Register => {
                    added = Some(i.op1_register());
                    continue;
                }
                (Some(other), None) if mnemonic == Mnemonic::Movsxd && i.op1_kind() == OpKind::Memory => {
                    let pair = [(target, other), (other, target)];
                    let found = pair.into_iter().find(|(entry, base)| {
                        to == Some(*entry) && i.memory_base() == *base && i.memory_index_scale() == 4 && plain
                    });
                    if let Some((_, table)) = found.filter(|_| target != other) {
                        base = Some(table);
                        continue;
                    }
                }
                (_, Some(base)) if mnemonic == Mnemonic::Lea && to == Some(base) => {
                    return self
                        .memory()
                        .filter(|_| i.is_ip_rel_memory_operand())
                        .map(|table| (*at, table));
                }
                _ => {}
            }
            let used = self.info.info_options(&i, InstructionInfoOptions::NO_MEMORY_USAGE);
            let changes = used.used_registers().iter().any(|used| {
                let whole = used.register().full_register();
                let awaited = match (added, base) {
                    (_, Some(base)) => whole == base,
                    (other, None) => whole == target || Some(whole) == other,
                };
                writes(used.access()) && awaited
            });
            if changes {
                return None;
            }
        }
        None
    }

    fn entries(&mut self, jump: u32, before: &[u32]) -> Option<(u32, u32)> {
        if !self.read(jump) || self.instruction.op0_kind() != OpKind::Memory {
            return None;
        }
        // Backwards: `jmp *table(,index,8)`, `movzx value, index`, `ja default`, `cmp $last, value`.
        let mut index = self.instruction.memory_index().full_register();
        if self.instruction.memory_index_scale() != 8 || self.instruction.memory_base() != Register::None {
            return None;
        }
        let (mut above, mut size) = (false, 4);
        for at in before {
            if !self.read(*at) {
                return None;
            }
            let i = self.instruction;
            if i.mnemonic() == Mnemonic::Ja {
                if above {
                    return None;
                }
                above = true;
                continue;
            }
            let whole =
                |operand: u32| (i.op_kind(operand) == OpKind::Register).then(|| i.op_register(operand).full_register());
            if above && i.rflags_modified() != 0 {
                let compared = i.op0_register();
                let is_index = i.mnemonic() == Mnemonic::Cmp && whole(0) == Some(index) && compared.size() >= size;
                let high = compared.is_gpr8() && (4..8).contains(&compared.number());
                let last = i.try_immediate(1).ok().filter(|_| is_index && !high)?;
                let last = last & (u64::MAX >> (64 - 8 * compared.size()));
                return Some((*at, u32::try_from(last).ok()?.checked_add(1)?));
            }
            let copied = match i.mnemonic() {
                Mnemonic::Mov | Mnemonic::Movzx if i.op_count() == 2 && whole(0) == Some(index) => {
                    whole(1).map(|from| (from, i.op1_register()))
                }
                _ => None,
            };
            if let Some((from, register)) = copied.filter(|_| wide(i.op0_register())) {
                if register.is_gpr8() && (4..8).contains(&register.number()) {
                    return None;
                }
                index = from;
                size = size.min(register.size());
                continue;
            }
            let used = self.info.info_options(&i, InstructionInfoOptions::NO_MEMORY_USAGE);
            let mut used = used.used_registers().iter();
            if used.any(|used| used.register().full_register() == index && writes(used.access())) {
                return None;
            }
        }
        None
    }

    fn reset(&mut self) {
        self.added = Register::None;
    }

    fn decode(&mut self, at: u32, events: &mut Vec<Event>) -> (u32, End) {
        if !self.read(at) {
            return (1, End::Invalid);
        }
        let length = u32::try_from(self.instruction.len()).unwrap_or(1);
        let added = std::mem::replace(&mut self.added, Register::None);
        let mut push = |kind, target| events.push(Event { at, kind, target });
        let end = match self.instruction.flow_control() {
            FlowControl::Next => {
                match self.instruction.mnemonic() {
                    Mnemonic::Hlt => return (length, End::Never),
                    Mnemonic::Nop => return (length, End::Nop),
                    Mnemonic::Add if self.instruction.op0_kind() == OpKind::Register => {
                        self.added = self.instruction.op0_register();
                    }
                    // What a compiler schedules between the addition and the jump.
                    Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Movzx | Mnemonic::Movsxd
                        if self.instruction.op0_register().full_register() != added.full_register() =>
                    {
                        self.added = added;
                    }
                    _ => {}
                }
                let plain = self.elf.relocatable && !self.instruction.is_ip_rel_memory_operand();
                if !plain {
                    self.refer(at, events);
                }
                End::Next
            }
            FlowControl::Call => match self.instruction.code() {
                Opcode::Syscall | Opcode::Sysenter => {
                    push(Kind::Site, 0);
                    End::Next
                }
                _ => {
                    if let Some(target) = self.branch() {
                        push(Kind::Call, target);
                    }
                    End::Call
                }
            },
            FlowControl::UnconditionalBranch => {
                if let Some(target) = self.branch() {
                    push(Kind::Jump, target);
                }
                End::Never
            }
            FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => {
                if let Some(target) = self.branch() {
                    push(Kind::Jump, target);
                }
                End::Next
            }
            FlowControl::IndirectCall => {
                match self.memory() {
                    Some(target) if self.slots.symbol(target).is_some() => push(Kind::SlotCall, target),
                    Some(target) => push(Kind::Data, target),
                    None => {}
                }
                End::Call
            }
            FlowControl::IndirectBranch => {
                let indexed = self.instruction.memory_index() != Register::None;
                match (self.memory(), self.instruction.op0_kind()) {
                    (Some(target), OpKind::Memory) if self.slots.symbol(target).is_some() => {
                        push(Kind::SlotJump, target);
                    }
                    (Some(target), OpKind::Memory) if indexed => push(Kind::TableJump, target),
                    (_, OpKind::Memory) if indexed => push(Kind::TableJump, 0),
                    (Some(target), OpKind::Memory) => {
                        push(Kind::Data, target);
                        push(Kind::Return, 0);
                    }
                    (_, OpKind::Register) if added == self.instruction.op0_register() => push(Kind::TableJump, 0),
                    _ => push(Kind::Return, 0),
                }
                End::Never
            }
            FlowControl::Return => {
                push(Kind::Return, 0);
                End::Never
            }
            FlowControl::Exception => End::Never,
            FlowControl::Interrupt => match self.instruction.code() {
                Opcode::Int_imm8 => {
                    if self.instruction.immediate8() == 0x80 {
                        push(Kind::Gate32, 0);
                    }
                    End::Next
                }
                _ => End::Never,
            },
        };
        (length, end)
    }

    fn step(&mut self, at: u32) -> Option<Step> {
        if !self.read(at) {
            return None;
        }
        let i = &self.instruction;
        let mut step = Step {
            length: u32::try_from(i.len()).ok()?,
            ends: matches!(
                i.flow_control(),
                FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Return
                    | FlowControl::Exception
            ) || i.mnemonic() == Mnemonic::Hlt,
            returns: i.flow_control() == FlowControl::Return,
            call: matches!(i.flow_control(), FlowControl::IndirectCall)
                || (i.flow_control() == FlowControl::Call && i.code() != Opcode::Syscall),
            ..Step::default()
        };
        step.jumps_if_equal = match i.mnemonic() {
            Mnemonic::Je => Some(true),
            Mnemonic::Jne => Some(false),
            _ => None,
        };
        if step.call || step.ends {
            return Some(step);
        }
        let known = lower(i, self, &mut step);
        if !known {
            for used in self
                .info
                .info_options(&self.instruction, InstructionInfoOptions::NONE)
                .used_registers()
            {
                let register = used.register().full_register();
                if writes(used.access()) && register.is_gpr64() {
                    step.writes |= 1 << register.number();
                }
            }
            let info = self.info.info(&self.instruction);
            for used in info.used_memory() {
                if writes(used.access()) {
                    step.store = match (used.base(), used.index()) {
                        (base, Register::None) if base.is_gpr64() => Store::At {
                            base: number(base),
                            offset: used.displacement().cast_signed(),
                            size: u8::try_from(used.memory_size().size()).unwrap_or(u8::MAX),
                        },
                        _ => Store::Anywhere,
                    };
                }
            }
        }
        Some(step)
    }

    fn treats(&mut self, at: u32, register: u8) -> Treats {
        if !self.read(at) {
            return Treats::Reads;
        }
        let i = &self.instruction;
        let through = i.op_count() == 1 && i.op0_kind() == OpKind::Register && number(i.op0_register()) == register;
        match i.flow_control() {
            FlowControl::IndirectCall if through => return Treats::Calls,
            FlowControl::IndirectBranch if through => return Treats::Jumps,
            _ => {}
        }
        let mut treats = Treats::Leaves;
        let used = self.info.info_options(i, InstructionInfoOptions::NO_MEMORY_USAGE);
        for used in used.used_registers() {
            let whole = used.register().full_register();
            if !whole.is_gpr64() || number(whole) != register {
                continue;
            }
            match used.access() {
                OpAccess::Write => treats = Treats::Overwrites,
                OpAccess::Read | OpAccess::CondRead if used.register().size() < 4 => {}
                OpAccess::None | OpAccess::NoMemAccess | OpAccess::CondWrite => {}
                _ => return Treats::Reads,
            }
        }
        treats
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn number(register: Register) -> u8 {
    u8::try_from(register.full_register().number()).unwrap_or(u8::MAX)
}

fn wide(register: Register) -> bool {
    register.is_gpr64() || register.is_gpr32()
}

/// The memory operand as a place, when it has a base register and no index.
fn place(i: &Instruction) -> Option<Place> {
    (i.memory_index() == Register::None && i.memory_base().is_gpr64()).then(|| Place::Memory {
        base: number(i.memory_base()),
        offset: i.memory_displacement64().cast_signed(),
    })
}

fn source(i: &Instruction, operand: u32, decoder: &X86<'_, '_>) -> Source {
    match i.op_kind(operand) {
        OpKind::Register if wide(i.op_register(operand)) => {
            Source::Place(Place::Register(number(i.op_register(operand))))
        }
        OpKind::Memory => match (decoder.memory(), place(i)) {
            (Some(address), _) if i.is_ip_rel_memory_operand() || i.memory_base() == Register::None => {
                Source::Global(address)
            }
            (_, Some(place)) => Source::Place(place),
            _ => Source::Opaque,
        },
        OpKind::Immediate8
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32
        | OpKind::Immediate32to64
        | OpKind::Immediate64 => Source::Constant(i.immediate(operand)),
        _ => Source::Opaque,
    }
}

/// Describes the instructions that carry numbers; others are left to their general effects.
fn lower(i: &Instruction, decoder: &X86<'_, '_>, step: &mut Step) -> bool {
    let register = (i.op0_kind() == OpKind::Register && wide(i.op0_register())).then(|| number(i.op0_register()));
    let same =
        i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
    let immediate = i.try_immediate(1).ok().filter(|_| i.op_count() == 2);
    match (i.mnemonic(), register) {
        (Mnemonic::Mov, Some(to)) => step.assign(Place::Register(to), source(i, 1, decoder), How::SAME),
        (Mnemonic::Mov, None) if i.op0_kind() == OpKind::Memory => match place(i) {
            Some(to) if i.memory_size().size() >= 4 => {
                step.assign(to, source(i, 1, decoder), How::SAME);
                step.stored = u8::try_from(i.memory_size().size()).unwrap_or(u8::MAX);
            }
            _ => return false,
        },
        (Mnemonic::Mov, None) if i.op0_kind() == OpKind::Register && i.op0_register().is_gpr8() => {
            // `mov al, 15` after `xor eax, eax` is a short way to write a small number.
            let low = i.op0_register().number() < 4 || i.op0_register().number() > 7;
            let (Some(value), true) = (immediate, low) else {
                return false;
            };
            let to = Place::Register(number(i.op0_register()));
            step.assign(to, Source::Place(to), How::masked(!0xff, value & 0xff));
        }
        (Mnemonic::Movzx, Some(to)) => {
            let (size, from) = match i.op1_kind() {
                OpKind::Register if i.op1_register().is_gpr8() && (4..8).contains(&i.op1_register().number()) => {
                    return false;
                }
                OpKind::Register => (
                    i.op1_register().size(),
                    Source::Place(Place::Register(number(i.op1_register()))),
                ),
                _ => (i.memory_size().size(), source(i, 1, decoder)),
            };
            let mask = if size == 1 { 0xff } else { 0xffff };
            step.assign(Place::Register(to), from, How::masked(mask, 0));
        }
        (Mnemonic::Movsxd, Some(to)) => step.assign(Place::Register(to), source(i, 1, decoder), How::SAME),
        (Mnemonic::Lea, Some(to)) => {
            let offset = i.memory_displacement64();
            let (base, index) = (i.memory_base(), i.memory_index());
            let from = match (base, index) {
                _ if i.is_ip_rel_memory_operand() => decoder.memory().map_or(Source::Opaque, Source::Address),
                (Register::None, Register::None) => Source::Constant(0),
                (base, Register::None) => Source::Place(Place::Register(number(base))),
                (Register::None, index) if i.memory_index_scale() == 1 => Source::Place(Place::Register(number(index))),
                _ => Source::Opaque,
            };
            let offset = if i.is_ip_rel_memory_operand() { 0 } else { offset };
            step.assign(Place::Register(to), from, How::added(offset));
        }
        (Mnemonic::Xor | Mnemonic::Sub, Some(to)) if same => {
            step.assign(Place::Register(to), Source::Constant(0), How::SAME);
        }
        (Mnemonic::Sbb, Some(to)) if same => {
            step.assign(Place::Register(to), Source::Choice(0, u64::MAX), How::SAME);
        }
        (Mnemonic::Add | Mnemonic::Sub | Mnemonic::Inc | Mnemonic::Dec, Some(to)) => {
            let value = match i.mnemonic() {
                Mnemonic::Inc => 1,
                Mnemonic::Dec => u64::MAX,
                Mnemonic::Add => match immediate {
                    Some(value) => value,
                    None => return false,
                },
                _ => match immediate {
                    Some(value) => value.wrapping_neg(),
                    None => return false,
                },
            };
            step.assign(
                Place::Register(to),
                Source::Place(Place::Register(to)),
                How::added(value),
            );
        }
        (Mnemonic::And, Some(to)) if to != RSP => match immediate {
            Some(value) => step.assign(
                Place::Register(to),
                Source::Place(Place::Register(to)),
                How::masked(value, 0),
            ),
            None => return false,
        },
        (Mnemonic::Or, Some(to)) if immediate == Some(u64::MAX) || immediate == Some(0xffff_ffff) => {
            step.assign(Place::Register(to), Source::Constant(u64::MAX), How::SAME);
        }
        (Mnemonic::Push, _) => {
            let to = Place::Memory { base: RSP, offset: -8 };
            step.assign(to, source(i, 0, decoder), How::SAME);
            step.stored = 8;
            step.assign(
                Place::Register(RSP),
                Source::Place(Place::Register(RSP)),
                How::added(8u64.wrapping_neg()),
            );
        }
        (Mnemonic::Pop, Some(to)) if to != RSP => {
            step.assign(
                Place::Register(to),
                Source::Place(Place::Memory { base: RSP, offset: 0 }),
                How::SAME,
            );
            step.assign(Place::Register(RSP), Source::Place(Place::Register(RSP)), How::added(8));
        }
        (Mnemonic::Leave, _) => {
            step.assign(Place::Register(RSP), Source::Place(Place::Register(RBP)), How::added(8));
            step.assign(
                Place::Register(RBP),
                Source::Place(Place::Memory { base: RBP, offset: 0 }),
                How::SAME,
            );
        }
        (Mnemonic::Xchg, Some(one)) if i.op1_kind() == OpKind::Register && wide(i.op1_register()) => {
            let (one, other) = (Place::Register(one), Place::Register(number(i.op1_register())));
            step.assign(one, Source::Place(other), How::SAME);
            step.assign(other, Source::Place(one), How::SAME);
        }
        (Mnemonic::Cdqe, _) => {}
        (Mnemonic::Test, Some(compared)) if same => step.compares = Some((compared, 0)),
        (Mnemonic::Cmp, Some(compared)) => step.compares = immediate.map(|value| (compared, value)),
        (Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Cmp | Mnemonic::Test, _) => {}
        (_, Some(to)) if moves_conditionally(i.mnemonic()) => {
            step.assign(Place::Register(to), source(i, 1, decoder), How::SAME);
            step.maybe = true;
        }
        (_, None) if sets_conditionally(i.mnemonic()) && i.op0_kind() == OpKind::Register => {
            let low = i.op0_register().number() < 4 || i.op0_register().number() > 7;
            if !low {
                return false;
            }
            let to = Place::Register(number(i.op0_register()));
            step.moves[0] = Some(Move {
                to,
                from: Source::Place(to),
                how: How::masked(!0xff, 0),
            });
            step.moves[1] = Some(Move {
                to,
                from: Source::Place(to),
                how: How::masked(!0xff, 1),
            });
        }
        _ => return false,
    }
    true
}

/// Whether an instruction is one of the conditional moves.
fn moves_conditionally(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Cmova
            | Mnemonic::Cmovae
            | Mnemonic::Cmovb
            | Mnemonic::Cmovbe
            | Mnemonic::Cmove
            | Mnemonic::Cmovg
            | Mnemonic::Cmovge
            | Mnemonic::Cmovl
            | Mnemonic::Cmovle
            | Mnemonic::Cmovne
            | Mnemonic::Cmovno
            | Mnemonic::Cmovnp
            | Mnemonic::Cmovns
            | Mnemonic::Cmovo
            | Mnemonic::Cmovp
            | Mnemonic::Cmovs
    )
}

/// Whether an instruction writes a condition as 0 or 1.
fn sets_conditionally(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Seta
            | Mnemonic::Setae
            | Mnemonic::Setb
            | Mnemonic::Setbe
            | Mnemonic::Sete
            | Mnemonic::Setg
            | Mnemonic::Setge
            | Mnemonic::Setl
            | Mnemonic::Setle
            | Mnemonic::Setne
            | Mnemonic::Setno
            | Mnemonic::Setnp
            | Mnemonic::Setns
            | Mnemonic::Seto
            | Mnemonic::Setp
            | Mnemonic::Sets
    )
}
