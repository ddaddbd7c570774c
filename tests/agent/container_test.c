// SPDX-License-Identifier: Apache-2.0
/* Paths as the runtimes write them, and what else stands in /proc/PID/cgroup. */
#include "agent/container.h"
#include "agent/filter.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ID "3f4e1a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607"
#define OUTER "00000a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607"
#define POD "5d1a8c7e-0b3f-4e2d-9a6c-1f2e3d4c5b6a"
#define POD_UNDERSCORES "5d1a8c7e_0b3f_4e2d_9a6c_1f2e3d4c5b6a"

static const struct {
	const char *name, *cgroup, *id, *runtime, *pod, *unit;
} cases[] = {
	{"docker, v2, systemd driver", "0::/system.slice/docker-" ID ".scope\n", ID, "docker", "", "docker-" ID ".scope"},
	{"docker, v2, cgroupfs driver", "0::/docker/" ID "\n", ID, "docker", "", ""},
	{"docker, v1", "12:pids:/docker/" ID "\n11:memory:/docker/" ID "\n1:name=systemd:/docker/" ID "\n0::/system.slice/containerd.service\n", ID,
		"docker", "", ""},
	{"docker in docker: the inner one", "0::/docker/" OUTER "/docker/" ID "\n", ID, "docker", "", ""},
	{"rootless docker", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker-" ID ".scope\n", ID, "docker", "", "docker-" ID ".scope"},
	{"containerd under Kubernetes, systemd driver, v2",
		"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" POD_UNDERSCORES ".slice/cri-containerd-" ID ".scope\n", ID,
		"containerd", POD, "cri-containerd-" ID ".scope"},
	{"guaranteed pod, systemd driver", "0::/kubepods.slice/kubepods-pod" POD_UNDERSCORES ".slice/cri-containerd-" ID ".scope\n", ID, "containerd",
		POD, "cri-containerd-" ID ".scope"},
	{"Kubernetes, cgroupfs driver, v1", "9:cpu,cpuacct:/kubepods/besteffort/pod" POD "/" ID "\n", ID, "", POD, ""},
	{"Kubernetes, static pod", "0::/kubepods/burstable/pod5d1a8c7e0b3f4e2d9a6c1f2e3d4c5b6a/" ID "\n", ID, "", "5d1a8c7e0b3f4e2d9a6c1f2e3d4c5b6a", ""},
	{"containerd with drivers that disagree", "0::/system.slice/containerd.service/kubepods-burstable-pod" POD_UNDERSCORES ".slice:cri-containerd:" ID "\n",
		ID, "containerd", POD, "containerd.service"},
	{"kind: a node that is a container",
		"0::/docker/" OUTER "/kubelet/kubepods/besteffort/pod" POD "/" ID "\n", ID, "", POD, ""},
	{"CRI-O, v2", "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" POD_UNDERSCORES ".slice/crio-" ID ".scope\n", ID, "cri-o", POD,
		"crio-" ID ".scope"},
	{"CRI-O's monitor is in none", "0::/kubepods.slice/crio-conmon-" ID ".scope\n", "", "", "", "crio-conmon-" ID ".scope"},
	{"podman, root", "0::/machine.slice/libpod-" ID ".scope\n", ID, "podman", "", "libpod-" ID ".scope"},
	{"podman, rootless, with its own cgroup below",
		"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope/container\n", ID, "podman", "", "libpod-" ID ".scope"},
	{"podman's monitor is in none", "0::/machine.slice/libpod-conmon-" ID ".scope\n", "", "", "", "libpod-conmon-" ID ".scope"},
	{"systemd-nspawn, scope", "0::/machine.slice/machine-debian\\x2d12.scope/payload\n", "debian-12", "nspawn", "", "machine-debian\\x2d12.scope"},
	{"systemd-nspawn, service", "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service\n", "web", "nspawn", "", "nginx.service"},
	{"LXC, v2", "0::/lxc.payload.web1/system.slice/ssh.service\n", "web1", "lxc", "", "ssh.service"},
	{"LXC, v1", "3:cpu:/lxc/web1\n", "web1", "lxc", "", ""},
	{"ECS", "0::/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890\n", "0123456789abcdef0123456789abcdef-1234567890", "",
		"", ""},
	{"a service of systemd", "0::/system.slice/nginx.service\n", "", "", "", "nginx.service"},
	{"a service with an instance", "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", "", "", "", "postgresql@15-main.service"},
	{"a session", "0::/user.slice/user-0.slice/session-3.scope\n", "", "", "", "session-3.scope"},
	{"v1 and v2 mixed: a container in any hierarchy", "2:cpuset:/\n1:name=systemd:/system.slice/docker.service\n3:cpu:/docker/" ID "\n", ID, "docker", "",
		"docker.service"},
	{"the root", "0::/\n", "", "", "", ""},
	{"63 digits are no ID", "0::/docker/3f4e1a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60\n", "", "", "", ""},
	{"65 digits are no ID", "0::/docker/" ID "0\n", "", "", "", ""},
	{"capitals are no digits", "0::/docker/3F4e1a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607\n", "", "", "", ""},
	{"a pod UID with a dash elsewhere", "0::/kubepods/pod5d1a8c7-e0b3f-4e2d-9a6c-1f2e3d4c5b6a/" ID "\n", ID, "", "", ""},
	{"no newline at the end", "0::/docker/" ID, ID, "docker", "", ""},
	{"nothing", "", "", "", "", ""},
	{"no colons", "docker/" ID "\n", "", "", "", ""},
	{"one colon", "0:docker/" ID "\n", "", "", "", ""},
};

Test(container_parse, paths_of_all_runtimes)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct container c;
		container_parse(cases[i].cgroup, strlen(cases[i].cgroup), &c);
		cr_expect_str_eq(c.id, cases[i].id, "%s: id %s", cases[i].name, c.id);
		cr_expect_str_eq(c.runtime, cases[i].runtime, "%s: runtime %s", cases[i].name, c.runtime);
		cr_expect_str_eq(c.pod_uid, cases[i].pod, "%s: pod %s", cases[i].name, c.pod_uid);
		cr_expect_str_eq(c.unit, cases[i].unit, "%s: unit %s", cases[i].name, c.unit);
	}
}

Test(container_parse, hostile_names_are_cut_and_stay_one_line)
{
	char text[4096] = "0::/lxc/";
	struct container c;
	memset(text + 8, 'a', 4000);
	memcpy(text + 10, "\x01\x1b[2J", 5);
	container_parse(text, 4008, &c);
	cr_assert_eq(strlen(c.id), (size_t)CONTAINER_ID_MAX);
	cr_assert_null(strpbrk(c.id, "\x01\x1b\n"));
	/* An escape cut in the middle, at the very end of the bytes given. */
	static const char cut[] = {'0', ':', ':', '/', 'l', 'x', 'c', '/', 'a', '\\', 'x', '2'};
	char *exact = malloc(sizeof(cut));
	memcpy(exact, cut, sizeof(cut));
	container_parse(exact, sizeof(cut), &c);
	cr_assert_str_eq(c.id, "a\\x2");
	free(exact);
}

Test(container_parse, random_bytes_never_read_outside)
{
	static const char *const words[] = {"docker-", "docker", "/", "\n", "::", "pod", "kubepods-", ".slice", ".scope", ".service", "\\x2d", ":cri-containerd:", "lxc", ID};
	unsigned seed = 7;
	for (int round = 0; round < 20000; round++) {
		char text[300];
		size_t len = 0;
		while (len < 200) {
			seed = seed * 1103515245 + 12345;
			const char *word = words[(seed >> 16) % (sizeof(words) / sizeof(words[0]))];
			size_t n = strlen(word);
			memcpy(text + len, word, n);
			len += n;
		}
		char *exact = malloc(len);
		struct container c;
		memcpy(exact, text, len);
		container_parse(exact, len, &c);
		cr_assert_leq(strlen(c.id), (size_t)CONTAINER_ID_MAX);
		free(exact);
	}
}

Test(container_unit_service, services_have_names_and_sessions_none)
{
	char name[CONTAINER_UNIT_MAX + 1];
	cr_assert(container_unit_service("nginx.service", name));
	cr_assert_str_eq(name, "nginx");
	cr_assert(container_unit_service("postgresql@15-main.service", name));
	cr_assert_str_eq(name, "postgresql@15-main");
	cr_assert_not(container_unit_service("session-3.scope", name));
	cr_assert_not(container_unit_service("user@1000.service", name));
	cr_assert_not(container_unit_service(".service", name));
	cr_assert_not(container_unit_service("", name));
}

/* -------------------------------------------------------------------------------------- filters */

static struct sample_head head_of(uint32_t pid, const char *comm)
{
	struct sample_head head = {.pid = pid};
	memcpy(head.comm, comm, strnlen(comm, sizeof(head.comm)));
	return head;
}

Test(filter_sample, all_conditions_must_hold_and_one_of_each_list)
{
	struct filter f;
	struct sample_head fits = head_of(7, "worker-12"), other_pid = head_of(8, "worker-12"), other_comm = head_of(7, "main");
	struct sample_head sixteen = head_of(9, "0123456789abcdef");
	cr_assert_null(filter_init(&f, "7, 9", "worker-*,0123456789abcdef", NULL, NULL));
	cr_assert(filter_sample(&f, &fits));
	cr_assert(filter_sample(&f, &sixteen));
	cr_assert_not(filter_sample(&f, &other_pid));
	cr_assert_not(filter_sample(&f, &other_comm));
	cr_assert_not(f.needs_process);
	filter_deinit(&f);
}

Test(filter_process, containers_by_their_first_digits_and_labels_by_pattern)
{
	struct filter f;
	struct process_info web = {.service = "web", .executable = "nginx", .executable_path = "/usr/sbin/nginx", .label_count = 1,
		.labels = {{"k8s.pod.name", "web-7f"}}};
	struct process_info bare = {.service = "", .executable = "", .executable_path = ""};
	memcpy(web.container.id, ID, sizeof(ID));
	cr_assert_null(filter_init(&f, NULL, NULL, "3f4e1a", "service.name=db,k8s.pod.name=web-*"));
	cr_assert(f.needs_process);
	cr_assert(filter_process(&f, &web));
	cr_assert_not(filter_process(&f, &bare));
	web.labels[0].value = "api-7f";
	cr_assert_not(filter_process(&f, &web));
	filter_deinit(&f);
	cr_assert_null(filter_init(&f, NULL, NULL, "ffff", NULL));
	cr_assert_not(filter_process(&f, &web));
	filter_deinit(&f);
}

Test(filter_init, wrong_lists_say_which)
{
	static const struct {
		const char *pids, *labels, *words;
	} wrong[] = {{"12x", NULL, "12x"}, {"0", NULL, "\"0\""}, {"-4", NULL, "-4"}, {"99999999999", NULL, "99999999999"}, {NULL, "team", "team"}, {NULL, "=x", "=x"}};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct filter f;
		struct err *e = filter_init(&f, wrong[i].pids, NULL, NULL, wrong[i].labels);
		cr_assert_not_null(e);
		cr_expect_eq(err_code(e), ERR_INVALID);
		cr_expect_not_null(strstr(err_message(e), wrong[i].words), "%s", err_message(e));
		err_free(e);
		filter_deinit(&f);
	}
}
