"""The assets of the second code location. What computes is imported when an asset runs, so the location loads fast."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    Config,
    ConfigurableResource,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field

from training.config import FamilyName, load_config
from training.program import code_version
from training.rules import LEAKAGE, RULES
from training.rules import SPLITS as PROOF
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema_docs import markdown_table
from trendflow.orchestration.failures import failure, typed_failures

if TYPE_CHECKING:
    from training.steps import Trained, Workplace
    from trendflow.dataset.stored_tables import StoredTable

TRAINING_DATASET = "training_dataset"
SPLITS, EVALUATION, MODEL_CARD, TRAINING_REPORT = "splits", "evaluation", "model_card", "training_report"
BASELINES: tuple[FamilyName, ...] = ("catboost", "lightgbm")
OWNERS = ["team:machine-learning"]
_GROUP = "training"
_CODE_VERSION = code_version()
_KEYS = "as in the files of training/configs"
_FILE = "YAML file of settings, or the name of one of training/configs"

Results = Iterator[MaterializeResult[Any] | AssetCheckResult]


class TrainingResource(ConfigurableResource[Any]):
    """Where training works. Unset fields come from `TRENDFLOW_*` variables."""

    home: str | None = Field(default=None, description="Folder of a single-machine deployment.")
    store_url: str | None = Field(default=None, description="file:///…, s3://bucket/prefix or memory://")
    artifacts: str = Field(default="training/artifacts", description="Folder of the training runs.")

    @property
    def place(self) -> "Workplace":
        """The store, and the folders that lie on this machine."""
        from training.steps import Workplace

        update: dict[str, Any] = {}
        if self.home is not None:
            update["home"] = Path(self.home).absolute()
        if self.store_url is not None:
            update["store_url"] = self.store_url
        return Workplace(load_settings().model_copy(update=update), Path(self.artifacts).absolute())


class SplitsConfig(Config):
    """How the dataset is divided."""

    config: str | None = Field(
        default=None,
        description=f"{_FILE}; `split` and `golden` of it count. few_rows_time suits some hundred rows.",
    )
    settings: dict = Field(default_factory=dict, description=f"Settings on top of the file, {_KEYS}.")


class BaselineConfig(Config):
    """How a family is trained; the division is that of the asset `splits`."""

    config: str | None = Field(default=None, description=f"{_FILE}, as for `trendflow-train train --config`.")
    settings: dict = Field(default_factory=dict, description=f"Settings on top of the file, {_KEYS}.")
    previous: str | None = Field(default=None, description="Folder of the run to be replaced, for the quality gate.")
    retrain: bool = Field(default=False, description="Train even where the same run exists.")


def training_dataset() -> AssetSpec:
    """The asset of the other location, so that the graph goes on from there."""
    return AssetSpec(TRAINING_DATASET, group_name="dataset", description="Made by the code location `trendflow`.")


def build_training_assets() -> list[AssetsDefinition]:
    """The division, one asset per family, and what is made of all of them."""
    return [_splits(), *(_baseline(family) for family in BASELINES), _evaluation(), _model_card(), _reports()]


def _splits() -> AssetsDefinition:
    @asset(
        name=SPLITS,
        deps=[TRAINING_DATASET],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"parquet"},
        code_version=_CODE_VERSION,
        description="Which videos train, validate and test: divided by time and by channel.",
        check_specs=[AssetCheckSpec(PROOF, asset=SPLITS, description=RULES[PROOF], blocking=True)],
    )
    def splits(config: SplitsConfig, training: TrainingResource) -> Results:
        from training.steps import divide, prove_division, publish_division

        with typed_failures():
            place = training.place
            chosen = load_config(None if config.config is None else Path(config.config), config.settings)
            division = divide(place, chosen)
            try:
                proof = prove_division(division)
            except TrendFlowError as error:
                yield AssetCheckResult(
                    asset_key=SPLITS, check_name=PROOF, passed=False, metadata={"result": error.message}
                )
                raise
            stored = publish_division(place, division)
        parts = ("train", "val", "test")
        folds = [
            (fold["fold"], *(f"{fold['n'][part]} videos, {fold['n_channels'][part]} channels" for part in parts))
            for fold in proof["folds"]
        ]
        yield MaterializeResult(
            data_version=DataVersion(stored.digest),
            metadata={
                **_stamp(stored.facts["synthetic"]),
                "method": proof["method"],
                "folds": MetadataValue.md(markdown_table(("fold", *parts), folds)),
                "test_rows": proof["n_test"],
                "not_time_ordered": proof["not_time_ordered"],
                "dataset_fingerprint": stored.facts["fingerprint"],
            },
        )
        yield AssetCheckResult(
            asset_key=SPLITS, check_name=PROOF, passed=True, metadata={"proof": MetadataValue.json(proof)}
        )

    return splits


def _baseline(family: FamilyName) -> AssetsDefinition:
    name = f"baseline_{family}"

    @asset(
        name=name,
        deps=[TRAINING_DATASET, SPLITS],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={family},
        code_version=_CODE_VERSION,
        description=f"Six heads of {family} with intervals, beside all comparators, in a training run of their own.",
        check_specs=[AssetCheckSpec(check, asset=name, description=rule) for check, rule in RULES.items()],
    )
    def baseline(context: AssetExecutionContext, config: BaselineConfig, training: TrainingResource) -> Results:
        from training.run_checks import check_run
        from training.steps import publish_trained, train_family

        with typed_failures():
            place = training.place
            try:
                trained = train_family(
                    place,
                    family,
                    None if config.config is None else Path(config.config),
                    config.settings,
                    previous=None if config.previous is None else Path(config.previous),
                    retrain=config.retrain,
                    progress=context.log.info,
                )
            except TrendFlowError as error:
                if error.error_code == "leakage_violation":
                    yield AssetCheckResult(
                        asset_key=name, check_name=LEAKAGE, passed=False, metadata={"result": error.message}
                    )
                raise
            checks = check_run(trained.run, trained.dataset)
            unsound = [check for check in checks if not check.sound]
            if not unsound:
                publish_trained(place, trained)
        if not unsound:
            yield MaterializeResult(
                asset_key=name, data_version=DataVersion(trained.data_version), metadata=_run_metadata(place, trained)
            )
        for check in checks:
            yield AssetCheckResult(
                asset_key=name,
                check_name=check.name,
                passed=check.passed,
                severity=AssetCheckSeverity.WARN if check.sound else AssetCheckSeverity.ERROR,
                metadata={"result": check.result},
            )
        if unsound:
            raise failure(TrendFlowError("artifact_validation_failed", f"{unsound[0].name}: {unsound[0].result}"))

    return baseline


def _evaluation() -> AssetsDefinition:
    @asset(
        name=EVALUATION,
        deps=[f"baseline_{family}" for family in BASELINES],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"json"},
        code_version=_CODE_VERSION,
        description="All families beside all comparators on the same rows, with intervals and paired differences.",
    )
    def evaluation(training: TrainingResource) -> MaterializeResult[Any]:
        from training.compare import markdown
        from training.steps import store_evaluation

        with typed_failures():
            place = training.place
            stored, found = store_evaluation(place, BASELINES)
        return MaterializeResult(
            data_version=DataVersion(stored.digest),
            metadata={
                **_stamp(found.document["synthetic"]),
                "runs": MetadataValue.json(dict(found.document["runs"])),
                "tables": MetadataValue.md(markdown(found)),
                **_files(place, stored),
            },
        )

    return evaluation


def _model_card() -> AssetsDefinition:
    @asset(
        name=MODEL_CARD,
        deps=[EVALUATION],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"markdown"},
        code_version=_CODE_VERSION,
        description="What the models are for, what they were made of, how good they are and where they end.",
    )
    def model_card(training: TrainingResource) -> MaterializeResult[Any]:
        from training.steps import store_model_card
        from trendflow.dataset.table.synthetic import is_synthetic

        with typed_failures():
            place = training.place
            stored, text = store_model_card(place, BASELINES)
        return MaterializeResult(
            data_version=DataVersion(stored.digest),
            metadata={
                **_stamp(is_synthetic(stored.facts["runs"])),
                "runs": MetadataValue.json(dict(zip(BASELINES, stored.facts["runs"], strict=True))),
                "card": MetadataValue.md(text),
                **_files(place, stored),
            },
        )

    return model_card


def _reports() -> AssetsDefinition:
    @asset(
        name=TRAINING_REPORT,
        deps=[f"baseline_{family}" for family in BASELINES],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"html"},
        code_version=_CODE_VERSION,
        description="One page per training run: tables, calibration, buckets, importance and the data card.",
    )
    def training_report(training: TrainingResource) -> MaterializeResult[Any]:
        from training.steps import store_reports
        from trendflow.dataset.table.synthetic import is_synthetic

        with typed_failures():
            place = training.place
            stored = store_reports(place, BASELINES)
        return MaterializeResult(
            metadata={
                **_stamp(is_synthetic(report.run_id for report in stored.values())),
                **{family: MetadataValue.path(_location(place, report.key)) for family, report in stored.items()},
            }
        )

    return training_report


def _run_metadata(place: "Workplace", trained: "Trained") -> dict[str, Any]:
    from training.compare import compare, markdown
    from training.run import REPORT

    run = trained.run
    return {
        **_stamp(run.manifest["synthetic"]),
        "training_run_id": run.run_id,
        "reused": trained.reused,
        "dataset_version": run.manifest["dataset"]["dataset_version"],
        "features": len(run.manifest["feature_names"]),
        "metrics": MetadataValue.md(markdown(compare([run.folder]))),
        "folder": MetadataValue.path(str(run.folder)),
        "report": MetadataValue.path(str(run.folder / REPORT)),
        "stored": MetadataValue.path(_location(place, f"training/{run.run_id}/{REPORT}")),
    }


def _files(place: "Workplace", stored: "StoredTable") -> dict[str, Any]:
    """Where a person finds the files of a `StoredTable`."""
    return {name: MetadataValue.path(_location(place, f"{stored.prefix}/{name}")) for name in stored.files}


def _location(place: "Workplace", key: str) -> str:
    return str(place.store.local_path(key) or key)


def _stamp(synthetic: bool) -> dict[str, Any]:
    return {"SYNTHETIC": True} if synthetic else {}
