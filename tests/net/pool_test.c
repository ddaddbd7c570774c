// SPDX-License-Identifier: Apache-2.0
#include "net/pool.h"
#include "tests/net/socket.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

static _Atomic bool hold;
static _Atomic unsigned ran;
static char thread_name[32];

static void job(void *arg)
{
	(void)arg;
	while (atomic_load(&hold))
		(void)usleep(1000);
	atomic_fetch_add(&ran, 1);
}

static void name_job(void *arg)
{
	(void)arg;
	(void)prctl(PR_GET_NAME, thread_name);
}

Test(net_pool, refuses_past_its_queue_and_runs_what_it_took)
{
	struct net_pool *pool;
	struct net_pool_stats stats;
	atomic_store(&hold, true);
	cr_assert_null(net_pool_create("test", 1, 2, &pool));

	cr_assert(net_pool_submit(pool, job, NULL));
	cr_assert(WAIT_FOR((net_pool_stats(pool, &stats), stats.running == 1), 1000));
	cr_assert(net_pool_submit(pool, job, NULL));
	cr_assert(net_pool_submit(pool, job, NULL));
	cr_assert_not(net_pool_submit(pool, job, NULL));
	net_pool_stats(pool, &stats);
	cr_assert_eq(stats.queued, 2);
	cr_assert_eq(stats.refused, 1);
	atomic_store(&hold, false);
	net_pool_destroy(pool);
	cr_assert_eq(atomic_load(&ran), 3, "destroy runs what is queued");
}

Test(net_pool, names_its_threads)
{
	struct net_pool *pool;

	cr_assert_null(net_pool_create("api", 1, 1, &pool));
	cr_assert(net_pool_submit(pool, name_job, NULL));
	net_pool_destroy(pool);
	cr_assert_str_eq(thread_name, "api-0");
}

Test(net_pool, refuses_absurd_sizes)
{
	struct net_pool *pool = NULL;
	struct err *e = net_pool_create("x", 10000, 1, &pool);

	cr_assert(e && err_code(e) == ERR_INVALID);
	err_free(e);
	e = net_pool_create("x", 1, 0, &pool);
	cr_assert(e && err_code(e) == ERR_INVALID);
	err_free(e);
	e = net_pool_create("a name too long", 1, 1, &pool);
	cr_assert(e && err_code(e) == ERR_INVALID);
	err_free(e);
	cr_assert_null(pool);
}
