// SPDX-License-Identifier: Apache-2.0
/*
 * hold_writer DIR: takes the one place of a writer in the LMDB environment DIR, says "held" and keeps it until standard input ends.
 * To whoever wants to commit meanwhile it looks like a disk that does not answer.
 */
#include <lmdb.h>
#include <stdio.h>
#include <unistd.h>

static int fail(const char *what, int code)
{
	(void)fprintf(stderr, "hold_writer: %s: %s\n", what, mdb_strerror(code));
	return 1;
}

int main(int argc, char **argv)
{
	MDB_env *env;
	MDB_txn *txn;
	char byte;

	if (argc != 2)
		return 2;
	int code = mdb_env_create(&env);
	if (code == 0)
		code = mdb_env_open(env, argv[1], 0, 0600);
	if (code)
		return fail(argv[1], code);
	code = mdb_txn_begin(env, NULL, 0, &txn);
	if (code)
		return fail("mdb_txn_begin", code);
	(void)puts("held");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	mdb_txn_abort(txn);
	mdb_env_close(env);
	return 0;
}
