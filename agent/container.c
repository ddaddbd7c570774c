// SPDX-License-Identifier: Apache-2.0
/*
 * A line is `number:controllers:path`. What runtimes make of a path, each component by itself:
 *
 *     docker-<64 hex>.scope, .../docker/<64 hex>          docker, by its cgroup driver systemd or cgroupfs
 *     cri-containerd-<64 hex>.scope                       containerd under Kubernetes, systemd driver
 *     kubepods-burstable-pod<uid>.slice, .../pod<uid>/    Kubernetes; in slices the dashes of a UID are underscores
 *     kubepods-..-pod<uid>.slice:cri-containerd:<64 hex>  containerd when its drivers disagree
 *     crio-<64 hex>.scope                                 CRI-O; crio-conmon-.. is its monitor, not in the container
 *     libpod-<64 hex>.scope                               podman; libpod-conmon-.. likewise
 *     <32 hex>-<digits>                                   an ECS task's container
 *     machine-<name>.scope, systemd-nspawn@<name>.service systemd-nspawn, with \xNN for what a unit's name may not have
 *     lxc.payload.<name>, .../lxc/<name>                  LXC
 *     <64 hex>                                            whoever it is
 */
#include "agent/container.h"

#include "base/hex.h"

#include <string.h>

enum { HEX_ID_LEN = 64, ECS_HEX_LEN = 32 };

struct span {
	const char *at;
	size_t len;
};

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool all_hex(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!is_hex(s.at[i]))
			return false;
	return s.len > 0;
}

static bool cut_prefix(struct span *s, const char *prefix)
{
	size_t len = strlen(prefix);

	if (s->len < len || memcmp(s->at, prefix, len) != 0)
		return false;
	s->at += len;
	s->len -= len;
	return true;
}

static bool cut_suffix(struct span *s, const char *suffix)
{
	size_t len = strlen(suffix);

	if (s->len < len || memcmp(s->at + s->len - len, suffix, len) != 0)
		return false;
	s->len -= len;
	return true;
}

static bool equals(struct span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static void copy(char *to, size_t max, struct span s)
{
	size_t len = s.len < max ? s.len : max;

	memcpy(to, s.at, len);
	to[len] = 0;
	/* It becomes a label: nothing that breaks a line. */
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)to[i] < 0x20 || to[i] == 0x7f)
			to[i] = '?';
}

static void set_id(struct container *c, struct span id, const char *runtime)
{
	copy(c->id, CONTAINER_ID_MAX, id);
	c->runtime = runtime;
}

/* A systemd unit's name with its \xNN resolved (systemd.unit(5)). */
static void set_machine(struct container *c, struct span name, const char *runtime)
{
	char plain[CONTAINER_ID_MAX];
	size_t len = 0;

	for (size_t i = 0; i < name.len && len < sizeof(plain); i++) {
		bool is_escape = name.len - i >= 4 && name.at[i] == '\\' && name.at[i + 1] == 'x' && is_hex(name.at[i + 2]) && is_hex(name.at[i + 3]);
		int escaped = is_escape ? hex_digit(name.at[i + 2]) * 16 + hex_digit(name.at[i + 3]) : 0;
		plain[len++] = is_escape ? (char)(uint8_t)escaped : name.at[i];
		i += is_escape ? 3 : 0;
	}
	if (len > 0)
		set_id(c, (struct span){plain, len}, runtime);
}

/* 8-4-4-4-12 hex digits, dashes or underscores between; or 32 hex digits (a static pod's). */
static bool take_pod_uid(struct container *c, struct span uid)
{
	static const size_t dashes[] = {8, 13, 18, 23};
	char plain[CONTAINER_POD_UID_LEN];

	if (uid.len == 32 && all_hex(uid)) {
		copy(c->pod_uid, CONTAINER_POD_UID_LEN, uid);
		return true;
	}
	if (uid.len != CONTAINER_POD_UID_LEN)
		return false;
	for (size_t i = 0, next = 0; i < uid.len; i++) {
		bool dash = next < sizeof(dashes) / sizeof(dashes[0]) && i == dashes[next];
		next += dash;
		if (dash ? uid.at[i] != '-' && uid.at[i] != '_' : !is_hex(uid.at[i]))
			return false;
		plain[i] = dash ? '-' : uid.at[i];
	}
	copy(c->pod_uid, CONTAINER_POD_UID_LEN, (struct span){plain, sizeof(plain)});
	return true;
}

/* "pod<uid>", "kubepods-pod<uid>.slice", "kubepods-besteffort-pod<uid>.slice". */
static bool take_pod(struct container *c, struct span part)
{
	if (cut_suffix(&part, ".slice")) {
		if (!cut_prefix(&part, "kubepods-"))
			return false;
		if (!cut_prefix(&part, "burstable-"))
			(void)cut_prefix(&part, "besteffort-");
	}
	return cut_prefix(&part, "pod") && take_pod_uid(c, part);
}

/* "<prefix><64 hex>", after .scope was cut. */
static bool take_prefixed(struct container *c, struct span part)
{
	static const struct {
		const char *prefix, *runtime;
	} known[] = {{"docker-", "docker"}, {"cri-containerd-", "containerd"}, {"containerd-", "containerd"}, {"crio-", "cri-o"},
		{"libpod-", "podman"}, {"cri-o-", "cri-o"}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct span id = part;
		if (!cut_prefix(&id, known[i].prefix) || id.len != HEX_ID_LEN || !all_hex(id))
			continue;
		set_id(c, id, known[i].runtime);
		return true;
	}
	return false;
}

/* "..:cri-containerd:<64 hex>" */
static bool take_coloned(struct container *c, struct span part)
{
	const char *colon = memrchr(part.at, ':', part.len);

	if (!colon)
		return false;
	struct span id = {colon + 1, part.len - (size_t)(colon + 1 - part.at)}, before = {part.at, (size_t)(colon - part.at)};
	if (id.len != HEX_ID_LEN || !all_hex(id))
		return false;
	set_id(c, id, cut_suffix(&before, ":cri-containerd") ? "containerd" : "");
	if (before.len > 0)
		(void)take_pod(c, before);
	return true;
}

static bool is_ecs(struct span part)
{
	struct span head = {part.at, ECS_HEX_LEN};

	if (part.len < ECS_HEX_LEN + 2 || part.len > CONTAINER_ID_MAX || !all_hex(head) || part.at[ECS_HEX_LEN] != '-')
		return false;
	for (size_t i = ECS_HEX_LEN + 1; i < part.len; i++)
		if (part.at[i] < '0' || part.at[i] > '9')
			return false;
	return true;
}

static void take_component(struct container *c, struct span part, struct span before)
{
	struct span name = part;
	bool is_scope = cut_suffix(&name, ".scope");

	if (take_pod(c, part) || take_prefixed(c, name) || take_coloned(c, part))
		return;
	if (all_hex(part) && part.len == HEX_ID_LEN) {
		const char *runtime = equals(before, "docker") ? "docker" : equals(before, "libpod_parent") ? "podman" : "";
		set_id(c, part, runtime);
	} else if (is_ecs(part)) {
		set_id(c, part, "");
	} else if (is_scope && cut_prefix(&name, "machine-")) {
		set_machine(c, name, "nspawn");
	} else if (cut_suffix(&name, ".service") && cut_prefix(&name, "systemd-nspawn@")) {
		set_machine(c, name, "nspawn");
	} else if (cut_prefix(&name, "lxc.payload.") || (equals(before, "lxc") && part.len > 0)) {
		set_machine(c, name, "lxc");
	}
}

static bool is_unit(struct span part)
{
	struct span name = part;

	return part.len <= CONTAINER_UNIT_MAX && (cut_suffix(&name, ".service") || cut_suffix(&name, ".scope")) && name.len > 0;
}

static void take_path(struct container *c, struct span path)
{
	struct span before = {path.at, 0};

	while (path.len > 0) {
		const char *slash = memchr(path.at, '/', path.len);
		struct span part = {path.at, slash ? (size_t)(slash - path.at) : path.len};
		path.at += part.len + (slash != NULL);
		path.len -= part.len + (slash != NULL);
		if (part.len == 0)
			continue;
		if (is_unit(part))
			copy(c->unit, CONTAINER_UNIT_MAX, part);
		take_component(c, part, before);
		before = part;
	}
}

void container_parse(const char *text, size_t len, struct container *ret)
{
	struct span left = {text, len};

	*ret = (struct container){.runtime = ""};
	while (left.len > 0) {
		const char *newline = memchr(left.at, '\n', left.len);
		struct span line = {left.at, newline ? (size_t)(newline - left.at) : left.len};
		left.at += line.len + (newline != NULL);
		left.len -= line.len + (newline != NULL);
		const char *colon = memchr(line.at, ':', line.len);
		size_t rest = colon ? line.len - (size_t)(colon + 1 - line.at) : 0;
		colon = colon ? memchr(colon + 1, ':', rest) : NULL;
		if (!colon)
			continue;
		struct container found = {.runtime = ""};
		take_path(&found, (struct span){colon + 1, line.len - (size_t)(colon + 1 - line.at)});
		if (found.id[0]) {
			if (!found.unit[0])
				memcpy(found.unit, ret->unit, sizeof(found.unit));
			*ret = found;
			return;
		}
		if (!ret->unit[0])
			memcpy(ret->unit, found.unit, sizeof(found.unit));
	}
}

bool container_unit_service(const char *unit, char name[CONTAINER_UNIT_MAX + 1])
{
	struct span part = {unit, strlen(unit)};

	if (!cut_suffix(&part, ".service") || part.len == 0)
		return false;
	if (strncmp(unit, "user@", 5) == 0)
		return false;
	copy(name, CONTAINER_UNIT_MAX, part);
	return true;
}
