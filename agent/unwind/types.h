// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What the unwinder reads, in the layout that user space writes and BPF maps hold: fixed widths, no pointers, no
 * implicit padding. One process's memory is described in four steps:
 *
 *     mapping     [start, end) of the process -> executable, and the ELF address of `start`
 *     executable  -> its pages: dense from page_base on, 64 KiB of ELF addresses each
 *     page        -> its deltas, sorted; the first has low == 0, so that no search ever leaves its page
 *     delta       -> from this address on, unwind info number `info` holds
 *     info        how to find the caller; shared by all executables, each different one once
 *
 * x86-64 only: registers are DWARF's numbers (System V ABI x86-64, figure 3.36).
 */
#ifndef CAIRN_AGENT_UNWIND_TYPES_H
#define CAIRN_AGENT_UNWIND_TYPES_H

#include <linux/types.h>

enum {
	UNWIND_REG_RBX = 3,
	UNWIND_REG_RBP = 6,
	UNWIND_REG_RSP = 7,
	UNWIND_REG_RIP = 16, /* the return address column */
	UNWIND_REGS = 16,

	UNWIND_PAGE_BITS = 16,
	UNWIND_PAGE_MASK = 0xffff,
	UNWIND_SEARCH_STEPS = 17, /* a page has at most 65,536 deltas */
	UNWIND_MAPPING_STEPS = 16,
	UNWIND_MAPPINGS_MAX = 1 << 15, /* of one process; more are cut and counted */
	UNWIND_INFOS_MAX = 1 << 14,
	UNWIND_EXES_MAX = 1 << 13,
	UNWIND_FRAMES_MAX = 1024,
};

/* Infos with a fixed number. */
enum unwind_command {
	UNWIND_NONE = 0,	  /* nothing is known here: padding, data, code without call frame information */
	UNWIND_STOP = 1,	  /* the outermost frame: there is no caller */
	UNWIND_FRAME_POINTER = 2, /* push rbp; mov rbp, rsp holds: nothing better is known */
	UNWIND_PENDING = 3,	  /* the executable's table is being made */
	UNWIND_COMMANDS = 4,
};

enum unwind_cfa {
	UNWIND_CFA_NONE,
	UNWIND_CFA_STOP,
	UNWIND_CFA_REG,	  /* reg + cfa_off */
	UNWIND_CFA_DEREF, /* *(reg + cfa_off) + cfa_add: realigned stacks, signal frames */
	UNWIND_CFA_PENDING,
	UNWIND_CFA_PLT,	  /* rsp + cfa_off + ((rip & 15) >= cfa_add ? 8 : 0): ld's expression for lazy PLT entries */
};

enum unwind_rule {
	UNWIND_RULE_SAME,      /* as in the callee; of the return address: not possible */
	UNWIND_RULE_CFA,       /* at CFA + off */
	UNWIND_RULE_MEM,       /* at *(reg + off), registers before this step: signal frames */
	UNWIND_RULE_UNDEFINED, /* of the return address: the outermost frame */
	UNWIND_RULE_REG,       /* in a register: vfork keeps its return address in one while it shares the stack */
};

enum unwind_flag {
	UNWIND_SIGNAL = 1, /* the caller was interrupted, it made no call; its stack may be another one */
	UNWIND_SWITCH = 2, /* the caller's stack may be another one: Go's system stack */
};

/*
 * A push or pop in the middle of an info is no delta of its own: UNWIND_MERGE_AT bytes after the delta's address the CFA is
 * 8 bytes further from its register (or nearer, with UNWIND_MERGE_POP).
 */
enum unwind_merge { UNWIND_MERGE_AT = 0x7f, UNWIND_MERGE_POP = 0x80, UNWIND_MERGE_MAX = 2 };

struct unwind_info {
	__u8 cfa;     /* enum unwind_cfa */
	__u8 cfa_reg; /* under UNWIND_REGS */
	__u8 fp;      /* enum unwind_rule for rbp */
	__u8 fp_reg;
	__u8 ra; /* enum unwind_rule for the return address */
	__u8 ra_reg;
	__u8 flags; /* enum unwind_flag */
	__u8 merge; /* enum unwind_merge; 0: none */
	__s32 cfa_off, cfa_add, fp_off, ra_off, bx_off;
	__u8 bx; /* enum unwind_rule for rbx, which ld.so's resolver counts its CFA from */
	__u8 bx_reg;
	__u8 reserved[2];
};
_Static_assert(sizeof(struct unwind_info) == 32, "layout shared with BPF");

struct unwind_delta {
	__u16 low; /* ELF address & 0xffff */
	__u16 info;
};
_Static_assert(sizeof(struct unwind_delta) == 4, "layout shared with BPF");

struct unwind_page {
	__u32 first, count; /* count 0: nothing is known in this page */
};

struct unwind_exe {
	__u64 page_base; /* ELF address of the first page >> UNWIND_PAGE_BITS */
	__u32 first_page, page_count;
	__u32 otherwise; /* the info of addresses that no page covers */
	__u32 reserved;
};
_Static_assert(sizeof(struct unwind_exe) == 24, "layout shared with BPF");

enum unwind_mapping_kind {
	UNWIND_MAPPING_FILE = 1, /* exe says how */
	UNWIND_MAPPING_FRAME_POINTER, /* no file: JIT code */
};

struct unwind_mapping {
	__u64 start, end; /* [start, end) in the process */
	__u64 vaddr;	  /* ELF address of start */
	__u32 exe;	  /* 0: none */
	__u32 kind;
};
_Static_assert(sizeof(struct unwind_mapping) == 32, "layout shared with BPF");

/* The unwinder's state: registers of the frame it is at, and how far it came. */
struct unwind_run {
	__u64 pc, sp, fp;
	__u32 first_mapping, mapping_count; /* of the process */
	__u32 frame_count;
	__u32 end;	   /* enum unwind_end, once ended */
	__u8 is_interrupted; /* pc is where it ran, not a return address */
	__u8 is_leaf;	   /* registers are all known */
	__u8 by_frame_pointer; /* the last step followed rbp for want of anything better */
	__u8 signals;	   /* frames of signal handlers that were passed */
	__u32 frame_pointer_steps;
	__u64 regs[UNWIND_REGS]; /* of the leaf */
	__u64 bx_at; /* where rbx of this frame was saved; 0: still in regs; UNWIND_LOST */
};
#define UNWIND_LOST 1

/* Why a stack ends. Each has a counter. */
enum unwind_end {
	UNWIND_END_COMPLETE,	/* the outermost frame was reached */
	UNWIND_END_NO_PROCESS,	/* its mappings are not known yet */
	UNWIND_END_NO_MAPPING,	/* the address lies in no known mapping */
	UNWIND_END_NO_TABLE,	/* the executable's table is being made */
	UNWIND_END_NO_INFO,	/* no call frame information for the address */
	UNWIND_END_NO_REGISTER, /* the CFA is counted from a register that is not known in this frame */
	UNWIND_END_NO_STACK,	/* there is no stack to read, not even the leaf's: the process is in exec or exit */
	UNWIND_END_READ,	/* the stack could not be read */
	UNWIND_END_PROGRESS,	/* the stack pointer did not move towards the root */
	UNWIND_END_FRAMES,	/* UNWIND_FRAMES_MAX */
	UNWIND_END_FRAME_POINTER, /* a chain of frame pointers ended without an outermost frame */
	UNWIND_ENDS,
};

/* A frame: executable << 48 | ELF address; executable 0: an address of the process. */
#define UNWIND_FRAME_EXE_SHIFT 48
#define UNWIND_FRAME_ADDRESS_MASK 0xffffffffffffULL

#endif
