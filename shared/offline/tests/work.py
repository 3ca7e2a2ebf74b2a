"""Does random things in a tree: sys.argv has where the disks are mounted, a seed, and how many things."""

import os
import random
import shutil
import stat
import sys

top, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
os.chdir(top + "/root")
# Where something is mounted, and what leads there.
KEPT = {"./home", "./home/dev", "./var", "./var/lib", "./var/lib/docker", "./link"}
# Exists, another file system, is a directory, invalid, busy, name too long, loops, absent, not empty, a pipe.
EXPECTED = (17, 18, 21, 22, 26, 16, 36, 40, 2, 39, 6, 29)
number = 0


def everything(want):
    found = []
    for dir, dirs, files in os.walk("."):
        for name in sorted(dirs) + sorted(files):
            path = os.path.join(dir, name)
            if path not in KEPT and want(os.lstat(path).st_mode):
                found.append(path)
    return sorted(found)


def pick(want):
    found = everything(want)
    if not found:
        raise FileNotFoundError(2, "nothing")
    return random.choice(found)


def new():
    global number
    number += 1
    dirs = everything(stat.S_ISDIR) + [".", "./home/dev", "./var/lib/docker"]
    name = random.choice(["n%d", "a name with \n and \xe4 %d", "%d" + "x" * 200]) % number
    return os.path.join(random.choice(dirs), name)


def write(path, mode):
    with open(path, mode) as file:
        if "a" not in mode and random.random() < 0.3:
            file.seek(random.randrange(40) * 4096 * 3)
        file.write(random.randbytes(random.choice([0, 1, 5000, 70000])))


def remove():
    path = pick(stat.S_ISDIR)
    # Else little would be left after a while.
    if path.count("/") < 2 or sum(len(files) for _, _, files in os.walk(path)) > 300:
        return
    shutil.rmtree(path)
    if random.random() < 0.7:
        os.mkdir(path)
        write(path + "/anew", "xb")


def write_to_one_of_several():
    path = pick(stat.S_ISREG)
    if os.lstat(path).st_nlink > 1:
        write(path, "ab")


def anything(mode):
    return True


def not_a_link(mode):
    return not stat.S_ISLNK(mode)


def not_a_dir(mode):
    return not stat.S_ISDIR(mode)


ACTS = [
    lambda: write(new(), "xb"),
    lambda: write(new(), "xb"),
    lambda: os.mkdir(new()),
    lambda: os.symlink(random.choice(["x", "/etc/" + "y" * 100, "../z"]), new()),
    lambda: os.link(pick(stat.S_ISREG), new()),
    lambda: write(pick(stat.S_ISREG), "r+b"),
    lambda: os.truncate(pick(stat.S_ISREG), random.choice([0, 3, 100000])),
    lambda: os.chmod(pick(not_a_link), random.randrange(0o10000)),
    lambda: os.lchown(pick(anything), random.randrange(70000), random.randrange(70000)),
    lambda: os.unlink(pick(not_a_dir)),
    lambda: os.rename(pick(stat.S_ISDIR), new()),
    lambda: os.rename(pick(stat.S_ISDIR), new()),
    lambda: os.rename(pick(anything), new()),
    remove,
    lambda: os.mknod(new(), random.choice([stat.S_IFIFO, stat.S_IFCHR]) | 0o600, os.makedev(4, 300)),
    lambda: os.setxattr(pick(stat.S_ISREG), "user.note", b"v" * random.choice([1, 500])),
    write_to_one_of_several,
    write_to_one_of_several,
]
for _ in range(count):
    try:
        random.choice(ACTS)()
    except OSError as error:
        if error.errno not in EXPECTED:
            raise
