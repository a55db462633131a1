# overlay PREPARED VENV: make an environment beside a prepared one that sees all its packages. What is installed later goes
# into ours, nothing into theirs. Meant to be put before a script.
overlay() {
    [ -x "$1/bin/python" ] || { echo "there is no bin/python in $1" >&2; return 66; }
    rm -rf "$2" && "$1/bin/python" -I -m venv --without-pip "$2" || return
    "$1/bin/python" -I - "$2" <<'PYTHON'
import glob, sys, sysconfig
folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
target = glob.glob(glob.escape(sys.argv[1]) + "/lib/python*/site-packages")[0]
with open(target + "/prepared-environment.pth", "w") as file:
    file.writelines(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
PYTHON
}
