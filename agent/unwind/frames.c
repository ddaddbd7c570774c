// SPDX-License-Identifier: Apache-2.0
/*
 * A section is a chain of entries: u32 length (0xffffffff: u64 follows; 0 ends .eh_frame), then
 *
 *     CIE   id (0 in .eh_frame, all ones in .debug_frame), version, augmentation, factors, return column, program
 *     FDE   CIE pointer (.eh_frame: backwards from here; .debug_frame: offset in the section), start, length, program
 *
 * A program is a little machine that writes a table of rows; the CIE's program gives the row each FDE begins with. Of a
 * row we keep what the unwinder follows: the CFA, rbp and the return address. The other registers are read past.
 *
 * Expressions: compilers and linkers write three kinds on x86-64, known by their bytes: breg7 8, breg16 0, lit15, and,
 * litN, ge, lit3, shl, plus (a lazy PLT entry: N is where its push is done), bregR off, deref (realigned stack, signal
 * frame), and bregR off for a place in memory (signal frame). Any other makes the row unsupported; the unwinder ends
 * there and says so.
 *
 * Bounds: an FDE's program runs once, a CIE's at most FRAMES_CIE_PROGRAM_MAX bytes for each FDE; each instruction is at
 * least one byte and makes at most one row, so rows are fewer than bytes.
 */
#include "agent/unwind/frames.h"

#include "base/reader.h"

enum {
	DW_CFA_advance_loc = 0x40,
	DW_CFA_offset = 0x80,
	DW_CFA_restore = 0xc0,
	DW_CFA_nop = 0x00,
	DW_CFA_set_loc,
	DW_CFA_advance_loc1,
	DW_CFA_advance_loc2,
	DW_CFA_advance_loc4,
	DW_CFA_offset_extended,
	DW_CFA_restore_extended,
	DW_CFA_undefined,
	DW_CFA_same_value,
	DW_CFA_register,
	DW_CFA_remember_state,
	DW_CFA_restore_state,
	DW_CFA_def_cfa,
	DW_CFA_def_cfa_register,
	DW_CFA_def_cfa_offset,
	DW_CFA_def_cfa_expression,
	DW_CFA_expression,
	DW_CFA_offset_extended_sf,
	DW_CFA_def_cfa_sf,
	DW_CFA_def_cfa_offset_sf,
	DW_CFA_val_offset,
	DW_CFA_val_offset_sf,
	DW_CFA_val_expression,
	DW_CFA_GNU_args_size = 0x2e,
	DW_CFA_GNU_negative_offset_extended,

	DW_OP_deref = 0x06,
	DW_OP_and = 0x1a,
	DW_OP_plus = 0x22,
	DW_OP_plus_uconst = 0x23,
	DW_OP_shl = 0x24,
	DW_OP_ge = 0x2a,
	DW_OP_lit0 = 0x30,
	DW_OP_breg0 = 0x70,

	PE_OMIT = 0xff,
	PE_ULEB = 0x01,
	PE_DATA2 = 0x02,
	PE_DATA4 = 0x03,
	PE_DATA8 = 0x04,
	PE_SIGNED = 0x08,
	PE_SLEB = 0x09,
	PE_PCREL = 0x10,
	PE_INDIRECT = 0x80,
};

/* A rule, or one that the unwinder cannot follow. */
struct rule {
	uint8_t kind, reg;
	bool unsupported;
	int64_t off;
};

struct state {
	uint8_t cfa, cfa_reg;
	bool cfa_unsupported;
	int64_t cfa_off, cfa_add;
	struct rule fp, ra, bx;
};

struct cie {
	uint64_t offset; /* in the section: which one this is */
	bool valid, has_augmentation_data, is_signal;
	uint8_t pointer_encoding;
	uint64_t code_factor, return_column;
	int64_t data_factor;
	struct reader program;
};

struct walk {
	const struct frames_section *section;
	frames_row_fn *row;
	void *context;
	struct frames_counts *counts;
	struct cie cie; /* the one read last */
};

/* One FDE under way. */
struct machine {
	struct walk *walk;
	const struct cie *cie;
	struct state state, initial, remembered[FRAMES_REMEMBER_MAX];
	unsigned remembered_count;
	uint64_t function, low, end;
	bool in_cie;
};

static bool fits_s32(int64_t value)
{
	return value >= INT32_MIN && value <= INT32_MAX;
}

/** A pointer in one of the DW_EH_PE encodings; @p base is the ELF address of the reader's start. */
static uint64_t read_pointer(struct reader *r, uint8_t encoding, uint64_t base)
{
	uint64_t at = base + reader_offset(r), value = 0;

	switch (encoding & 0x0f) {
	case 0:
	case PE_DATA8:
	case PE_DATA8 | PE_SIGNED:
		value = reader_u64(r);
		break;
	case PE_ULEB:
		value = reader_uleb(r);
		break;
	case PE_SLEB:
		value = (uint64_t)reader_sleb(r);
		break;
	case PE_DATA2:
		value = reader_u16(r);
		break;
	case PE_DATA2 | PE_SIGNED:
		value = (uint64_t)(int64_t)(int16_t)reader_u16(r);
		break;
	case PE_DATA4:
		value = reader_u32(r);
		break;
	case PE_DATA4 | PE_SIGNED:
		value = (uint64_t)(int64_t)(int32_t)reader_u32(r);
		break;
	default:
		reader_fail(r);
	}
	switch (encoding & 0xf0) {
	case 0:
		return value;
	case PE_PCREL:
		return at + value;
	default: /* text, data and function relative, aligned, indirect: not in code addresses of x86-64 */
		reader_fail(r);
		return 0;
	}
}

/** bregR off, alone or with a deref (and an addend) behind it. False for anything else. */
static bool parse_breg(struct reader e, bool *is_deref, uint8_t *reg, int64_t *off, int64_t *add)
{
	uint8_t op = reader_u8(&e);

	if (op < DW_OP_breg0 || op >= DW_OP_breg0 + UNWIND_REGS)
		return false;
	*reg = (uint8_t)(op - DW_OP_breg0);
	*off = reader_sleb(&e);
	*add = 0;
	*is_deref = false;
	if (reader_left(&e) > 0) {
		*is_deref = reader_u8(&e) == DW_OP_deref;
		if (!*is_deref)
			return false;
		if (reader_left(&e) > 0) {
			if (reader_u8(&e) != DW_OP_plus_uconst)
				return false;
			*add = (int64_t)reader_uleb(&e);
		}
	}
	return !e.failed && reader_left(&e) == 0 && fits_s32(*off) && fits_s32(*add);
}

/** ld's expression for a lazy PLT entry; false for anything else. */
static bool parse_plt(struct reader e, int64_t *off, int64_t *from)
{
	static const uint8_t tail[] = {DW_OP_ge, DW_OP_lit0 + 3, DW_OP_shl, DW_OP_plus};

	if (reader_u8(&e) != DW_OP_breg0 + UNWIND_REG_RSP)
		return false;
	*off = reader_sleb(&e);
	if (reader_u8(&e) != DW_OP_breg0 + UNWIND_REG_RIP || reader_sleb(&e) != 0)
		return false;
	if (reader_u8(&e) != DW_OP_lit0 + 15 || reader_u8(&e) != DW_OP_and)
		return false;
	*from = reader_u8(&e) - DW_OP_lit0;
	const uint8_t *rest = reader_bytes(&e, sizeof(tail));
	return rest && memcmp(rest, tail, sizeof(tail)) == 0 && reader_left(&e) == 0 && *from >= 0 && *from < 16 && fits_s32(*off);
}

static void set_cfa_expression(struct state *state, struct reader expression)
{
	bool is_deref = false;

	state->cfa_unsupported = false;
	if (parse_plt(expression, &state->cfa_off, &state->cfa_add)) {
		state->cfa = UNWIND_CFA_PLT;
		state->cfa_reg = UNWIND_REG_RSP;
	} else if (parse_breg(expression, &is_deref, &state->cfa_reg, &state->cfa_off, &state->cfa_add)) {
		state->cfa = is_deref ? UNWIND_CFA_DEREF : UNWIND_CFA_REG;
	} else {
		state->cfa = UNWIND_CFA_DEREF;
		state->cfa_unsupported = true;
	}
}

/** A register's value is at the expression's address. */
static struct rule expression_rule(struct reader expression)
{
	struct rule rule = {.kind = UNWIND_RULE_MEM};
	bool is_deref = false;
	int64_t add = 0;

	rule.unsupported = !parse_breg(expression, &is_deref, &rule.reg, &rule.off, &add) || is_deref;
	return rule;
}

static void set_cfa_register(struct state *state, uint64_t reg, int64_t off)
{
	state->cfa = UNWIND_CFA_REG;
	state->cfa_unsupported = reg >= UNWIND_REGS;
	state->cfa_reg = (uint8_t)(reg & (UNWIND_REGS - 1));
	state->cfa_off = off;
	state->cfa_add = 0;
}

static struct rule *rule_of(struct machine *m, struct state *state, uint64_t reg)
{
	if (reg == UNWIND_REG_RBP)
		return &state->fp;
	if (reg == UNWIND_REG_RBX)
		return &state->bx;
	return reg == m->cie->return_column ? &state->ra : NULL;
}

static void set_rule(struct machine *m, uint64_t reg, struct rule rule)
{
	struct rule *at = rule_of(m, &m->state, reg);

	if (at)
		*at = rule;
}

static void set_offset(struct machine *m, uint64_t reg, int64_t factored)
{
	int64_t off = 0;
	bool overflow = __builtin_mul_overflow(factored, m->cie->data_factor, &off);

	set_rule(m, reg, (struct rule){.kind = UNWIND_RULE_CFA, .off = off, .unsupported = overflow || !fits_s32(off)});
}

static void restore(struct machine *m, uint64_t reg)
{
	const struct rule *from = rule_of(m, &m->initial, reg);

	if (from)
		set_rule(m, reg, *from);
}

/** What the present state says, as the unwinder takes it. False: unsupported. */
static bool info_of(const struct machine *m, struct unwind_info *ret)
{
	const struct state *s = &m->state;

	*ret = (struct unwind_info){.flags = m->cie->is_signal ? UNWIND_SIGNAL : 0};
	if (s->ra.kind == UNWIND_RULE_UNDEFINED && !s->ra.unsupported) {
		ret->cfa = UNWIND_CFA_STOP;
		ret->flags = 0;
		return true;
	}
	if (s->cfa == UNWIND_CFA_NONE || s->cfa_unsupported || s->fp.unsupported || s->ra.unsupported || !fits_s32(s->cfa_off) ||
		!fits_s32(s->cfa_add) || s->ra.kind == UNWIND_RULE_SAME) {
		*ret = (struct unwind_info){.cfa = UNWIND_CFA_NONE};
		return false;
	}
	ret->cfa = s->cfa;
	ret->cfa_reg = s->cfa_reg;
	ret->cfa_off = (int32_t)s->cfa_off;
	ret->cfa_add = (int32_t)s->cfa_add;
	ret->fp = s->fp.kind;
	ret->fp_reg = s->fp.reg;
	ret->fp_off = (int32_t)s->fp.off;
	ret->ra = s->ra.kind;
	ret->ra_reg = s->ra.reg;
	ret->ra_off = (int32_t)s->ra.off;
	ret->bx = s->bx.unsupported ? (uint8_t)UNWIND_RULE_UNDEFINED : s->bx.kind;
	ret->bx_reg = s->bx.unsupported ? 0 : s->bx.reg;
	ret->bx_off = s->bx.unsupported ? 0 : (int32_t)s->bx.off;
	return true;
}

/** Ends the present row at @p high (cut at the function's end) and begins the next there. */
static struct err *advance_to(struct machine *m, uint64_t high)
{
	if (high > m->end || high < m->low)
		high = m->end;
	if (high > m->low) {
		struct frames_row row = {.low = m->low, .high = high, .function = m->function};
		if (!info_of(m, &row.info))
			m->walk->counts->rows_unsupported++;
		m->walk->counts->rows++;
		TRY(m->walk->row(m->walk->context, &row));
	}
	m->low = high;
	return NULL;
}

static struct err *advance(struct machine *m, uint64_t factored)
{
	uint64_t bytes = 0, high = 0;

	if (m->in_cie)
		return NULL;
	if (__builtin_mul_overflow(factored, m->cie->code_factor, &bytes) || __builtin_add_overflow(m->low, bytes, &high))
		high = m->end;
	return advance_to(m, high);
}

/** The instructions that change the CFA; false when @p op is none of them. */
static bool run_cfa(struct machine *m, struct reader *r, uint8_t op)
{
	struct state *s = &m->state;
	uint64_t reg = 0;

	switch (op) {
	case DW_CFA_def_cfa:
		reg = reader_uleb(r);
		set_cfa_register(s, reg, (int64_t)reader_uleb(r));
		return true;
	case DW_CFA_def_cfa_sf:
		reg = reader_uleb(r);
		set_cfa_register(s, reg, (int64_t)((uint64_t)reader_sleb(r) * (uint64_t)m->cie->data_factor));
		return true;
	case DW_CFA_def_cfa_register:
		set_cfa_register(s, reader_uleb(r), s->cfa_off);
		return true;
	case DW_CFA_def_cfa_offset:
		s->cfa_off = (int64_t)reader_uleb(r);
		return true;
	case DW_CFA_def_cfa_offset_sf:
		s->cfa_off = (int64_t)((uint64_t)reader_sleb(r) * (uint64_t)m->cie->data_factor);
		return true;
	case DW_CFA_def_cfa_expression:
		set_cfa_expression(s, reader_sub(r, reader_uleb(r)));
		return true;
	default:
		return false;
	}
}

/** The instructions that say where a register is; false when @p op is none of them. */
static bool run_register(struct machine *m, struct reader *r, uint8_t op)
{
	uint64_t reg = reader_uleb(r);

	switch (op) {
	case DW_CFA_offset_extended:
		set_offset(m, reg, (int64_t)reader_uleb(r));
		return true;
	case DW_CFA_offset_extended_sf:
		set_offset(m, reg, reader_sleb(r));
		return true;
	case DW_CFA_GNU_negative_offset_extended:
		set_offset(m, reg, (int64_t)(0 - reader_uleb(r)));
		return true;
	case DW_CFA_restore_extended:
		restore(m, reg);
		return true;
	case DW_CFA_undefined:
		set_rule(m, reg, (struct rule){.kind = UNWIND_RULE_UNDEFINED});
		return true;
	case DW_CFA_same_value:
		set_rule(m, reg, (struct rule){.kind = UNWIND_RULE_SAME});
		return true;
	case DW_CFA_register: {
		uint64_t holder = reader_uleb(r);
		set_rule(m, reg, (struct rule){.kind = UNWIND_RULE_REG, .reg = (uint8_t)(holder & (UNWIND_REGS - 1)), .unsupported = holder >= UNWIND_REGS});
		return true;
	}
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
		reader_uleb(r);
		set_rule(m, reg, (struct rule){.unsupported = true});
		return true;
	case DW_CFA_expression:
		set_rule(m, reg, expression_rule(reader_sub(r, reader_uleb(r))));
		return true;
	case DW_CFA_val_expression:
		reader_skip(r, reader_uleb(r));
		set_rule(m, reg, (struct rule){.unsupported = true});
		return true;
	default:
		return false;
	}
}

/** One instruction. @p ok_ret is false for one that is unknown or makes no sense here. */
static struct err *run_one(struct machine *m, struct reader *r, bool *ok_ret)
{
	uint8_t op = reader_u8(r), low = op & 0x3f;

	*ok_ret = true;
	switch (op & 0xc0) {
	case DW_CFA_advance_loc:
		return advance(m, low);
	case DW_CFA_offset:
		set_offset(m, low, (int64_t)reader_uleb(r));
		return NULL;
	case DW_CFA_restore:
		restore(m, low);
		return NULL;
	default:
		break;
	}
	switch (op) {
	case DW_CFA_nop:
		return NULL;
	case DW_CFA_set_loc: {
		uint64_t base = m->walk->section->vaddr + (uint64_t)(r->start - m->walk->section->bytes);
		uint64_t to = read_pointer(r, m->cie->pointer_encoding, base);
		return m->in_cie || r->failed ? NULL : advance_to(m, to);
	}
	case DW_CFA_advance_loc1:
		return advance(m, reader_u8(r));
	case DW_CFA_advance_loc2:
		return advance(m, reader_u16(r));
	case DW_CFA_advance_loc4:
		return advance(m, reader_u32(r));
	case DW_CFA_remember_state:
		*ok_ret = m->remembered_count < FRAMES_REMEMBER_MAX;
		if (*ok_ret)
			m->remembered[m->remembered_count++] = m->state;
		return NULL;
	case DW_CFA_restore_state:
		*ok_ret = m->remembered_count > 0;
		if (*ok_ret)
			m->state = m->remembered[--m->remembered_count];
		return NULL;
	case DW_CFA_GNU_args_size:
		reader_uleb(r);
		return NULL;
	default:
		*ok_ret = run_cfa(m, r, op) || run_register(m, r, op);
		return NULL;
	}
}

static struct err *run(struct machine *m, struct reader program, bool *ok_ret)
{
	*ok_ret = true;
	while (*ok_ret && reader_left(&program) > 0)
		TRY(run_one(m, &program, ok_ret));
	*ok_ret = *ok_ret && !program.failed;
	return NULL;
}

/** What stands between 'z' and the program: pointers we skip, the encoding of FDE addresses, the signal mark. */
static bool read_augmentation(struct reader *r, const char *augmentation, struct cie *cie)
{
	if (augmentation[0] == 0)
		return true;
	if (augmentation[0] != 'z')
		return false; /* "eh" and others older than 2001: their length is not known */
	cie->has_augmentation_data = true;
	struct reader data = reader_sub(r, reader_uleb(r));
	for (const char *c = augmentation + 1; *c; c++) {
		switch (*c) {
		case 'R':
			cie->pointer_encoding = reader_u8(&data);
			break;
		case 'L':
			reader_u8(&data);
			break;
		case 'P': {
			/* An indirect or odd personality is not followed: only its size matters here. */
			uint8_t encoding = reader_u8(&data);
			if (encoding != PE_OMIT)
				(void)read_pointer(&data, encoding & 0x0f, 0);
			break;
		}
		case 'S':
			cie->is_signal = true;
			break;
		case 'B': /* arm64: pointer authentication */
			break;
		default:
			return !data.failed; /* the rest is of a kind we do not know, its length we do */
		}
	}
	return !data.failed;
}

/** The CIE whose entry begins at @p offset, kept until another is asked for. */
static const struct cie *read_cie(struct walk *walk, uint64_t offset)
{
	const struct frames_section *section = walk->section;
	struct cie *cie = &walk->cie;

	if (cie->valid && cie->offset == offset)
		return cie;
	*cie = (struct cie){.offset = offset};
	struct reader all = reader_init(section->bytes, section->len, false, section->name);
	reader_seek(&all, offset);
	uint64_t len = reader_u32(&all);
	bool is_64 = len == UINT32_MAX;
	if (is_64)
		len = reader_u64(&all);
	struct reader r = reader_sub(&all, len);
	uint64_t id = section->is_debug_frame && is_64 ? reader_u64(&r) : reader_u32(&r);
	uint64_t expected = section->is_debug_frame ? (is_64 ? UINT64_MAX : UINT32_MAX) : 0;
	uint8_t version = reader_u8(&r);
	const char *augmentation = reader_text(&r, NULL);
	if (r.failed || id != expected || (version != 1 && version != 3 && version != 4))
		return NULL;
	if (version == 4) {
		uint8_t address_size = reader_u8(&r), segment_size = reader_u8(&r);
		if (address_size != 8 || segment_size != 0)
			return NULL;
	}
	cie->code_factor = reader_uleb(&r);
	cie->data_factor = reader_sleb(&r);
	cie->return_column = version == 1 ? reader_u8(&r) : reader_uleb(&r);
	if (r.failed || !read_augmentation(&r, augmentation, cie) || r.failed || reader_left(&r) > FRAMES_CIE_PROGRAM_MAX)
		return NULL;
	cie->program = r;
	cie->valid = true;
	return cie;
}

/** An FDE behind its CIE pointer. Damage is counted, not an error. */
static struct err *read_fde(struct walk *walk, struct reader r, const struct cie *cie)
{
	uint64_t base = walk->section->vaddr + (uint64_t)(r.start - walk->section->bytes);
	uint64_t low = read_pointer(&r, cie->pointer_encoding, base);
	uint64_t len = read_pointer(&r, cie->pointer_encoding & 0x07, 0); /* a size: unsigned, relative to nothing */
	struct machine m = {.walk = walk, .cie = cie, .function = low, .low = low, .in_cie = true};

	if (cie->has_augmentation_data)
		reader_skip(&r, reader_uleb(&r));
	if (r.failed || __builtin_add_overflow(low, len, &m.end)) {
		walk->counts->fdes_bad++;
		return NULL;
	}
	/* Before any instruction the return address has no rule, and rbp is as the callee left it. */
	m.state.ra = (struct rule){.kind = UNWIND_RULE_SAME};
	bool ok = false;
	TRY(run(&m, cie->program, &ok));
	m.initial = m.state;
	m.in_cie = false;
	if (ok)
		TRY(run(&m, r, &ok));
	if (!ok) {
		walk->counts->fdes_bad++;
		m.state.cfa_unsupported = true;
		m.state.ra.kind = UNWIND_RULE_SAME;
	}
	return advance_to(&m, m.end);
}

/** One entry of the chain at the reader's place. @p end_ret: it was the terminator. */
static struct err *read_entry(struct walk *walk, struct reader *all, bool *end_ret)
{
	const struct frames_section *section = walk->section;
	uint64_t offset = reader_offset(all), len = reader_u32(all);
	bool is_64 = len == UINT32_MAX;

	if (is_64)
		len = reader_u64(all);
	*end_ret = len == 0 && !all->failed && !section->is_debug_frame;
	if (*end_ret || (len == 0 && !all->failed))
		return NULL;
	struct reader r = *all;
	uint64_t id_offset = reader_offset(all);
	reader_skip(all, len);
	if (all->failed)
		return reader_error(all, "entry at 0x%llx passes the end of the section", (unsigned long long)offset);
	r.end = all->pos;
	uint64_t id = section->is_debug_frame && is_64 ? reader_u64(&r) : reader_u32(&r);
	bool is_cie = section->is_debug_frame ? id == (is_64 ? UINT64_MAX : UINT32_MAX) : id == 0;
	if (is_cie) {
		walk->counts->cies++;
		return NULL;
	}
	walk->counts->fdes++;
	uint64_t cie_offset = section->is_debug_frame ? id : id_offset - id;
	const struct cie *cie = r.failed || cie_offset >= section->len ? NULL : read_cie(walk, cie_offset);
	if (!cie) {
		walk->counts->fdes_bad++;
		return NULL;
	}
	return read_fde(walk, r, cie);
}

struct err *frames_parse(const struct frames_section *section, frames_row_fn *row, void *context, struct frames_counts *counts)
{
	*counts = (struct frames_counts){0};
	struct walk walk = {.section = section, .row = row, .context = context, .counts = counts};
	struct reader all = reader_init(section->bytes, section->len, false, section->name);
	bool end = false;

	while (!end && reader_left(&all) > 0)
		TRY(read_entry(&walk, &all, &end));
	return NULL;
}
