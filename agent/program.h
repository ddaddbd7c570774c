// SPDX-License-Identifier: Apache-2.0
/*
 * agent/sample.bpf.c in the kernel: which of its programs this kernel takes, its options and maps. Used by sampler.c only.
 */
#ifndef CAIRN_AGENT_PROGRAM_H
#define CAIRN_AGENT_PROGRAM_H

#include "agent/sampler.h"
#include "base/err.h"

struct bpf_program;
struct bpf_map;
struct sample_bpf;

struct program {
	struct sample_bpf *bpf;
	const struct bpf_program *on_tick, *on_switch, *on_probe; /* the last two NULL where they were not asked for */
	bool has_loop;
	enum sample_regs_way regs_way;
};

/** Errors as sampler_create. */
struct err *program_load(const struct sampler_options *options, struct program *ret) MUST_USE;
void program_unload(struct program *program);

#endif
