#[transactional_outbox]
pub async fn place_order(tx: &OutboxTransaction, cmd: PlaceOrder) -> Result<order::Model, AppError> {
    let order = cmd.into_order().insert(tx).await?;
    tx.emit(OrderPlaced::from(&order))?;
    Ok(order)
}

#[transactional_outbox(isolation = Serializable, retry = 3, emit = |order| OrderPlaced::from(order))]
async fn transfer<'a>(tx: &'a OutboxTransaction, name: &'a str) -> anyhow::Result<order::Model> {
    find(tx, name).await
}

#[transactional_outbox(mandatory)]
async fn inside(tx: &OutboxTransaction) -> Result<impl Display, DbErr> {
    Ok(1)
}
