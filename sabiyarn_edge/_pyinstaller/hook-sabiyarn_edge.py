"""Names what PyInstaller does not see: the operators' library, the bundled model, modules that are imported late, and
versions that are looked up."""

from importlib.metadata import PackageNotFoundError

from PyInstaller.utils.hooks import (  # type: ignore[import-untyped]
    collect_data_files,
    collect_submodules,
    copy_metadata,
)

datas = collect_data_files("sabiyarn_edge", includes=["models/**", "tasks/*.json", "server/**/*", "*.so"])
for package in ("sabiyarn_edge", "numpy", "onnxruntime", "tokenizers", "llguidance"):
    try:
        datas += copy_metadata(package)
    except PackageNotFoundError:  # one that only an extra needs
        continue
# Evaluation and exports start Python again or need torch; Ray starts Python on other machines.
hiddenimports = collect_submodules(
    "sabiyarn_edge",
    filter=lambda name: not any(part in name for part in (".modeling", ".export", ".ray", "._pyinstaller")),
)
