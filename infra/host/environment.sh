# The Python environment in folder/venv.
# $1: folder  $2: prepared environment or ""  $3: python  $4: uv or ""  $5: torch requirement  $6: torch index or ""
# $7: find-links or ""
folder=$1 prepared=$2 python=$3 uv=$4 torch=$5 torch_index=$6 find_links=$7
cd "$folder" || exit
venv=$folder/venv

if [ -n "$prepared" ]; then
    # An environment beside the prepared one that sees its packages: FabRating goes into ours, nothing into theirs.
    base=$prepared/bin/python
    [ -x "$base" ] || { echo "there is no bin/python in $prepared" >&2; exit 66; }
    rm -rf "$venv"
    "$base" -m venv --without-pip "$venv" || exit
    "$base" - "$venv" <<'PYTHON' || exit
import glob, sys, sysconfig
folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
target = glob.glob(sys.argv[1] + "/lib/python*/site-packages")[0]
with open(target + "/prepared-environment.pth", "w") as file:
    file.writelines(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
PYTHON
    exit 0
fi

[ -x "$venv/bin/python" ] || rm -rf "$venv"
links=
[ -z "$find_links" ] || links=--find-links
if [ -n "$uv" ]; then
    [ -d "$venv" ] || "$uv" venv --quiet --python "${python:-3.12}" "$venv" || exit
    install() { "$uv" pip install --quiet --python "$venv/bin/python" "$@"; }
else
    [ -d "$venv" ] || "$python" -m venv "$venv" || exit
    install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }
fi
if [ -n "$torch_index" ]; then
    install ${links:+"$links" "$find_links"} --index-url "$torch_index" "$torch" || exit
fi
# The lock names every package, so nothing is resolved here.
install ${links:+"$links" "$find_links"} --no-deps -r "$folder/requirements.txt" </dev/null
