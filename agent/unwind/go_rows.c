// SPDX-License-Identifier: Apache-2.0
/*
 * pcsp gives the bytes between rsp and the return address, so CFA = rsp + value + 8 anywhere in a function that moves rsp by
 * what the assembler can follow. A function with a frame saves rbp right below its return address: at CFA - 16. (Up to Go 1.20
 * it does so an instruction after it has made its frame; rbp is wrong for that one, which matters only to C frames above.)
 *
 * What is told apart by name, since the runtime treats it apart too (runtime/traceback.go, runtime/asm_amd64.s):
 *
 *     ends        goexit is every goroutine's first return address, mstart and rt0_go are a thread's first function; TOPFRAME
 *                 (Go 1.17; 1.16 has zeros there) marks them and others. mcall, morestack and gogo leave a stack for good: what they run is the
 *                 scheduler's, on its own stack, and its first frame is theirs.
 *     switches    systemstack and asmcgocall run a function on the thread's stack and come back. rbp keeps pointing into the
 *                 goroutine's stack meanwhile ("which is useful for stack unwinding"), so there CFA = rbp + 16. The same holds
 *                 for any other function that writes rsp (SPWRITE: nanotime1 calling the vDSO) once it has a frame.
 *     signals     sigreturn is the handlers' return address; the kernel's frame (ucontext) is at rsp. sigtramp is marked
 *                 TOPFRAME, but its caller is that frame.
 *
 * Go code called from C: cgocallback copies its frame onto the goroutine's stack with a return address inside
 * systemstack_switch, so pcsp leads from there to the Go code that called C; the C frames between are not seen.
 */
#include "agent/unwind/go_rows.h"

#include <inttypes.h>
#include <string.h>

enum {
	/* struct rt_sigframe behind its return address: ucontext, of which gregs begin at 40 (REG_RBP 10, REG_RSP 15, REG_RIP 16). */
	UCONTEXT_RBP = 120,
	UCONTEXT_RSP = 160,
	UCONTEXT_RIP = 168,

	PUSH_RBP_BYTES = 1,
	SET_RBP_BYTES = 3,     /* mov rbp, rsp behind push rbp: Go 1.21 on */
	SET_RBP_BYTES_OLD = 8, /* mov [rsp+n], rbp; lea rbp, [rsp+n] behind sub rsp: before */
};

enum kind { KIND_PLAIN, KIND_STOP, KIND_SWITCH, KIND_SIGNAL };

struct walk {
	const struct pclntab *tab;
	frames_row_fn *row;
	void *context;
	struct frames_counts *counts;
	uint64_t work, limit;
};

static enum kind kind_of(const struct pclntab *tab, const struct pclntab_func *func)
{
	static const struct {
		const char *name;
		enum kind kind;
	} known[] = {
		{"runtime.goexit", KIND_STOP}, {"runtime.mstart", KIND_STOP}, {"runtime.rt0_go", KIND_STOP}, {"_rt0_amd64", KIND_STOP},
		{"_rt0_amd64_linux", KIND_STOP}, {"runtime.mcall", KIND_STOP}, {"runtime.morestack", KIND_STOP}, {"runtime.gogo", KIND_STOP},
		{"gogo", KIND_STOP}, {"runtime.systemstack", KIND_SWITCH}, {"runtime.asmcgocall", KIND_SWITCH},
		{"runtime.sigreturn", KIND_SIGNAL}, {"runtime.sigreturn__sigaction", KIND_SIGNAL}, {"runtime.sigtramp", KIND_PLAIN},
	};
	const char *name = pclntab_name(tab, tab->names, func->name, GO_ROWS_NAME_MAX);

	for (size_t i = 0; name && i < ARRAY_SIZE(known); i++)
		if (strcmp(name, known[i].name) == 0)
			return known[i].kind;
	if (func->flag & PCLNTAB_TOP_FRAME)
		return KIND_STOP;
	return func->flag & PCLNTAB_SP_WRITE ? KIND_SWITCH : KIND_PLAIN;
}

static struct unwind_info plain_info(uint32_t frame)
{
	struct unwind_info info = {.cfa = UNWIND_CFA_REG, .cfa_reg = UNWIND_REG_RSP, .cfa_off = (int32_t)frame + 8, .ra = UNWIND_RULE_CFA, .ra_off = -8, .bx = UNWIND_RULE_UNDEFINED};

	if (frame >= 8) {
		info.fp = UNWIND_RULE_CFA;
		info.fp_off = -16;
	}
	return info;
}

static const struct unwind_info switch_info = {.cfa = UNWIND_CFA_REG, .cfa_reg = UNWIND_REG_RBP, .cfa_off = 16, .fp = UNWIND_RULE_CFA,
	.fp_off = -16, .ra = UNWIND_RULE_CFA, .ra_off = -8, .flags = UNWIND_SWITCH};
static const struct unwind_info signal_info = {.cfa = UNWIND_CFA_DEREF, .cfa_reg = UNWIND_REG_RSP, .cfa_off = UCONTEXT_RSP,
	.fp = UNWIND_RULE_MEM, .fp_reg = UNWIND_REG_RSP, .fp_off = UCONTEXT_RBP, .ra = UNWIND_RULE_MEM, .ra_reg = UNWIND_REG_RSP,
	.ra_off = UCONTEXT_RIP, .flags = UNWIND_SIGNAL};
static const struct unwind_info stop_info = {.cfa = UNWIND_CFA_STOP};

static struct err *give(struct walk *w, uint64_t function, uint64_t low, uint64_t high, const struct unwind_info *info)
{
	struct frames_row row = {.low = low, .high = high, .function = function, .info = *info};

	if (low >= high)
		return NULL;
	w->counts->rows++;
	return w->row(w->context, &row);
}

/** Rows [low, high) of one frame size; a function that switches stacks follows rbp once that is set. */
static struct err *give_step(struct walk *w, const struct pclntab_function *f, enum kind kind, uint64_t low, uint64_t high, uint32_t frame, uint64_t set_rbp)
{
	struct unwind_info info = plain_info(frame);
	uint64_t middle = kind == KIND_SWITCH && frame >= 8 && set_rbp < high - low ? low + set_rbp : high;

	TRY(give(w, f->low, low, middle, &info));
	return give(w, f->low, middle, high, &switch_info);
}

static struct err *give_function(struct walk *w, const struct pclntab_function *f, const struct pclntab_func *func, enum kind kind)
{
	struct pclntab_steps steps = pclntab_steps(w->tab, func->pcsp);
	const uint8_t *start = steps.r.pos;
	uint64_t low = f->low, set_rbp = 0;

	while (low < f->high && pclntab_next(w->tab, &steps)) {
		uint64_t high = steps.bytes < f->high - low ? low + steps.bytes : f->high;
		if (steps.value > GO_ROWS_FRAME_MAX) {
			reader_fail(&steps.r);
			break;
		}
		if (low == f->low)
			set_rbp = steps.bytes == PUSH_RBP_BYTES ? SET_RBP_BYTES : SET_RBP_BYTES_OLD;
		TRY(give_step(w, f, kind, low, high, steps.value, set_rbp));
		set_rbp = low == f->low ? set_rbp : 0;
		low = high;
	}
	if (steps.r.failed)
		w->counts->fdes_bad++;
	w->work += steps.r.failed ? 1 : (uint64_t)(steps.r.pos - start);
	return NULL;
}

struct err *go_rows(const struct pclntab *tab, frames_row_fn *row, void *context, struct frames_counts *counts)
{
	struct walk w = {.tab = tab, .row = row, .context = context, .counts = counts};
	uint64_t done = 0, len = (uint64_t)(tab->table.end - tab->table.start);

	w.limit = GO_ROWS_WORK * len + (1 << 20);
	for (uint64_t i = 0; i < tab->count; i++) {
		struct pclntab_function f = pclntab_function(tab, i);
		struct pclntab_func func;
		if (f.low >= f.high || f.low < done || !pclntab_func(tab, &f, &func)) {
			counts->fdes_bad++;
			continue;
		}
		done = f.high;
		counts->fdes++;
		enum kind kind = kind_of(tab, &func);
		/* Nobody called it: a handler returns to its first instruction, and return addresses are looked up minus 1. */
		if (kind == KIND_SIGNAL)
			TRY(give(&w, f.low, f.low - 1, f.low, &signal_info));
		if (kind == KIND_STOP || kind == KIND_SIGNAL)
			TRY(give(&w, f.low, f.low, f.high, kind == KIND_STOP ? &stop_info : &signal_info));
		else
			TRY(give_function(&w, &f, &func, kind));
		if (w.work > w.limit)
			return err_new(ERR_LIMIT, "%s is read over and over: more than %" PRIu64 " bytes of work", tab->table.place, w.limit);
	}
	return NULL;
}
