// SPDX-License-Identifier: Apache-2.0
/*
 * Features are probed, not guessed from the version (distributions carry features back):
 *
 *     bpf_loop                    on_tick, on_switch, on_probe; else the _tail programs and what they call in turn
 *     a growing hash map          room for processes as they come; else all of it at once
 *     BTF and bpf_task_pt_regs    user registers by the helper
 *     BTF                         .. from the top of task_struct.stack (on x86-64)
 *     neither                     .. from the top of the stack that a tick's stack pointer is on
 *
 * Offsets in kernel structures are read from BTF here and given as constants. CO-RE relocations would do the same, but libbpf
 * refuses the whole object where there is no BTF, and one object serves all kernels.
 */
#include "agent/program.h"

#include "agent/chunks.h"
#include "agent/privilege.h"
#include "base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sample.skel.h"

enum { BTF_NESTING_MAX = 4 };

static int log_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

__attribute__((format(printf, 2, 0))) static int log_all(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	return vfprintf(stderr, format, args);
}

static struct err *check_features(void)
{
	TRY(privilege_check(privilege_effective()));
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_PERF_EVENT, NULL) == 0)
		return err_new(ERR_UNSUPPORTED, "this kernel runs no BPF programs on perf events (CONFIG_BPF_EVENTS, CONFIG_PERF_EVENTS)");
	if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL) == 0)
		return err_new(ERR_UNSUPPORTED, "this kernel has no BPF ring buffer (Linux 5.8)");
	return NULL;
}

/**
 * Whether a program on perf events may use a hash map whose items are allocated when they come (6.1): that saves 5 MB. Asked of
 * the verifier, with a program that looks up key 0 in one.
 */
static bool takes_growing_hash(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
	CLEANUP(closep) int map = bpf_map_create(BPF_MAP_TYPE_HASH, "probe", sizeof(uint32_t), sizeof(uint32_t), 1, &options);
	const struct bpf_insn program[] = {
		{.code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = BPF_REG_10, .off = -4},
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_2, .src_reg = BPF_REG_10},
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_2, .imm = -4},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_map_lookup_elem},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	CLEANUP(closep) int fd = map >= 0 ? bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "probe", "GPL", program, ARRAY_SIZE(program), NULL) : -1;

	return fd >= 0;
}

static bool has_btf(const struct sampler_options *options)
{
	return !options->without_btf && access("/sys/kernel/btf/vmlinux", R_OK) == 0;
}

/** Offset in bytes of member @p name of structure @p id, also in unnamed members. */
static bool member_offset(const struct btf *btf, uint32_t id, const char *name, unsigned depth, uint32_t *ret)
{
	const struct btf_type *type = btf__type_by_id(btf, id);

	if (!type || !btf_is_composite(type) || depth > BTF_NESTING_MAX)
		return false;
	const struct btf_member *members = btf_members(type);
	for (uint32_t i = 0; i < btf_vlen(type); i++) {
		const char *member = btf__name_by_offset(btf, members[i].name_off);
		uint32_t offset = btf_member_bit_offset(type, i) / 8, inner = 0;
		if (member && strcmp(member, name) == 0) {
			*ret = offset;
			return true;
		}
		if (member && member[0] == 0 && member_offset(btf, members[i].type, name, depth + 1, &inner)) {
			*ret = offset + inner;
			return true;
		}
	}
	return false;
}

/** Where task_struct has what the programs read. */
static struct err *set_task_offsets(struct sample_bpf *bpf)
{
	uint32_t stack = 0, pid = 0;
	struct btf *btf = btf__load_vmlinux_btf();
	int id = btf ? btf__find_by_name_kind(btf, "task_struct", BTF_KIND_STRUCT) : -1;
	bool is_found = id > 0 && member_offset(btf, (uint32_t)id, "stack", 0, &stack) && member_offset(btf, (uint32_t)id, "pid", 0, &pid);

	btf__free(btf);
	if (!is_found)
		return err_new(ERR_UNSUPPORTED, "this kernel's BTF does not say where task_struct has stack and pid");
	bpf->rodata->task_stack_off = stack;
	bpf->rodata->task_pid_off = pid;
	return NULL;
}

static struct err *choose_regs(struct program *p, const struct sampler_options *options)
{
	p->regs_way = SAMPLE_REGS_STACK_TOP;
	if (options->without_task_regs || !has_btf(options))
		return NULL;
	bool has_helper = !options->without_regs_helper && libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_task_pt_regs, NULL) > 0;
	p->regs_way = has_helper ? SAMPLE_REGS_HELPER : SAMPLE_REGS_TASK_STACK;
	/* Reading BTF costs some 10 MB for a moment. */
	return p->regs_way == SAMPLE_REGS_TASK_STACK || options->off_cpu_threshold > 0 ? set_task_offsets(p->bpf) : NULL;
}

static void choose_programs(struct program *p, const struct sampler_options *options)
{
	struct sample_bpf *bpf = p->bpf;
	bool has_switch = options->off_cpu_threshold > 0, has_probe = options->probe_count > 0;
	struct {
		struct bpf_program *by_loop, *by_tail, *more;
		struct bpf_map *programs;
		bool is_wanted;
		const struct bpf_program **chosen;
	} occasions[] = {
		{bpf->progs.on_tick, bpf->progs.on_tick_tail, bpf->progs.tick_more, bpf->maps.tick_programs, true, &p->on_tick},
		{bpf->progs.on_switch, bpf->progs.on_switch_tail, bpf->progs.switch_more, bpf->maps.switch_programs, has_switch, &p->on_switch},
		{bpf->progs.on_probe, bpf->progs.on_probe_tail, bpf->progs.probe_more, bpf->maps.probe_programs, has_probe, &p->on_probe},
	};

	for (size_t i = 0; i < ARRAY_SIZE(occasions); i++) {
		bool by_tail = occasions[i].is_wanted && !p->has_loop;
		(void)bpf_program__set_autoload(occasions[i].by_loop, occasions[i].is_wanted && p->has_loop);
		(void)bpf_program__set_autoload(occasions[i].by_tail, by_tail);
		(void)bpf_program__set_autoload(occasions[i].more, by_tail);
		(void)bpf_map__set_autocreate(occasions[i].programs, by_tail);
		if (occasions[i].is_wanted)
			*occasions[i].chosen = p->has_loop ? occasions[i].by_loop : occasions[i].by_tail;
	}
	(void)bpf_map__set_autocreate(bpf->maps.off_cpu, has_switch);
}

static struct err *set_tail_call(const struct bpf_map *map, const struct bpf_program *program)
{
	uint32_t zero = 0;
	int fd = bpf_program__fd(program);

	return fd < 0 || bpf_map_update_elem(bpf_map__fd(map), &zero, &fd, BPF_ANY) == 0 ? NULL : err_os(errno, "BPF map %s", bpf_map__name(map));
}

static struct err *set_tail_calls(const struct program *p)
{
	if (p->has_loop)
		return NULL;
	TRY(set_tail_call(p->bpf->maps.tick_programs, p->bpf->progs.tick_more));
	TRY(set_tail_call(p->bpf->maps.switch_programs, p->bpf->progs.switch_more));
	return set_tail_call(p->bpf->maps.probe_programs, p->bpf->progs.probe_more);
}

static void set_sizes(struct sample_bpf *bpf, const struct sampler_options *options)
{
	if (!takes_growing_hash())
		(void)bpf_map__set_map_flags(bpf->maps.processes, 0);
	bpf_map__set_max_entries(bpf->maps.mappings, chunks_count_for(options->mappings_max, SAMPLE_CHUNK_MAPPINGS));
	bpf_map__set_max_entries(bpf->maps.pages, chunks_count_for(options->pages_max, SAMPLE_CHUNK_PAGES));
	bpf_map__set_max_entries(bpf->maps.deltas, chunks_count_for(options->deltas_max, SAMPLE_CHUNK_DELTAS));
	bpf_map__set_max_entries(bpf->maps.ring, options->ring_bytes);
	bpf->rodata->ring_bytes = options->ring_bytes;
}

static struct err *load(struct program *p, const struct sampler_options *options)
{
	p->bpf = sample_bpf__open();
	if (!p->bpf)
		return err_os(errno, "opening the BPF programs");
	p->has_loop = !options->without_loop && libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_loop, NULL) > 0;
	TRY(choose_regs(p, options));
	choose_programs(p, options);
	set_sizes(p->bpf, options);
	p->bpf->rodata->agent_pid = (uint32_t)getpid();
	p->bpf->rodata->only_pid = options->only_pid;
	p->bpf->rodata->regs_way = p->regs_way;
	p->bpf->rodata->off_cpu_threshold = options->off_cpu_threshold;
	int rc = sample_bpf__load(p->bpf);
	if (rc == -EPERM)
		return err_os(EPERM, "loading the BPF programs (a security module or kernel.lockdown may forbid it)");
	if (rc)
		return err_os(-rc, "loading the BPF programs (--verifier-log says more)");
	return set_tail_calls(p);
}

struct err *program_load(const struct sampler_options *options, struct program *ret)
{
	struct program p = {0};

	(void)libbpf_set_print(options->verifier_log ? log_all : log_nothing);
	TRY(check_features());
	if (options->off_cpu_threshold > 0 && (options->without_task_regs || !has_btf(options)))
		return err_new(ERR_UNSUPPORTED, "off-CPU profiling needs the kernel's BTF (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)");
	struct err *e = load(&p, options);
	if (e) {
		program_unload(&p);
		return e;
	}
	*ret = p;
	return NULL;
}

void program_unload(struct program *p)
{
	sample_bpf__destroy(p->bpf);
	*p = (struct program){0};
}
