"""Names what PyInstaller does not see: the operators' library, the bundled model, modules that are imported late."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules  # type: ignore[import-untyped]

datas = collect_data_files("sabiyarn_edge", includes=["models/**", "tasks/*.json", "server/**/*", "*.so"])
hiddenimports = collect_submodules(
    "sabiyarn_edge", filter=lambda name: ".modeling" not in name and ".export" not in name
)
